"""`DesignPolicy`: makes an engine run the batches of a design."""

from collections.abc import Iterator
from typing import ClassVar

from schedsim.experiments.design import Design, Stage, Turn
from schedsim.experiments.design_file import DESIGNED, DesignFile
from schedsim.policies.base import Policy, PreemptMode
from schedsim.request import Request, Status
from schedsim.scheduler import Step

DONE = "its part of the design is done"


class DesignPolicy(Policy):
    """Follows the script of `design` on the requests of its trace, which all arrive at the start.

    Whoever leaves is preempted and refused, so nothing finishes, and the run ends with the script,
    or with the batch in which `time_limit` seconds are over. Where the memory has no room the rest
    of a stage is left out. `file` says what was run.
    """

    name: ClassVar[str] = DESIGNED

    def __init__(self, design: Design, time_limit: float, seed: int) -> None:
        self._design = design
        self._time_limit = time_limit
        self._seed = seed
        self._requests: dict[int, Request] = {}
        self._left_out: list[int] = []
        self._passes = self._batches = self._skipped = 0
        self._now = 0.0
        self._has_room = True
        self._turns = self._script()

    def __repr__(self) -> str:
        return f"DesignPolicy(seed={self._seed})"

    def file(self) -> DesignFile:
        """What was run so far."""
        return DesignFile(
            seed=self._seed,
            passes=self._passes,
            batches=self._batches,
            planned=self._design.planned,
            skipped=self._skipped,
            left_out=self._left_out,
        )

    def on_arrival(self, request: Request, step: Step) -> None:
        self._requests[request.id] = request

    def victim(self, needy: Request, step: Step) -> Request | None:
        return None

    def schedule(self, step: Step) -> None:
        self._now = step.now
        for is_first, turn in self._turns:
            if is_first:
                self._leave_all(step)
            self._has_room = self._take(turn, step)
            if self._has_room:
                if not turn.counts:
                    self._left_out.append(step.iteration)
                return
            self._leave_all(step)
        self._leave_all(step)
        for request in step.waiting:
            step.reject(request, DONE)

    # ---- inside

    def _script(self) -> Iterator[tuple[bool, Turn]]:
        """The turns, one after the other, and whether a stage begins with each."""
        yield from self._stage(self._design.warm_up)
        self._batches = 0
        for stages in self._design.passes:
            for stage in stages:
                yield from self._stage(stage)
                if self._is_over:
                    return
            self._passes += 1

    def _stage(self, stage: Stage) -> Iterator[tuple[bool, Turn]]:
        is_first = True
        for place, batch in enumerate(stage):
            for turn in batch:
                yield is_first, turn
                is_first = False
                if not self._has_room:
                    self._skipped += len(stage) - place
                    return
            self._batches += 1
            if self._is_over:
                return

    @property
    def _is_over(self) -> bool:
        return self._now >= self._time_limit

    def _take(self, turn: Turn, step: Step) -> bool:
        """Plan a turn; False if the memory has no room for it, or nobody is left to run."""
        for place in turn.leave:
            self._leave(place, step)
        if turn.swap_out is not None:
            request = self._requests[turn.swap_out]
            if request.status is Status.RUNNING:
                step.preempt(request, PreemptMode.SWAP)
        if turn.decodes:
            step.run_decodes()
        chunks = turn.chunks
        if turn.swap_in is not None and self._requests[turn.swap_in].is_swapped:
            chunks = (*chunks, (turn.swap_in, 1))
        for place, tokens in chunks:
            request = self._requests[place]
            begins = request.status is not Status.RUNNING
            if not (step.admit(request, tokens) if begins else step.run(request, tokens)):
                return False
        runs_decodes = turn.decodes and step.decode_shape.decode_requests > 0
        return bool(chunks) or runs_decodes

    def _leave(self, place: int, step: Step) -> None:
        request = self._requests[place]
        if request.status is Status.RUNNING:
            step.preempt(request, PreemptMode.RECOMPUTE)
        if request.status in (Status.WAITING, Status.PREEMPTED):
            step.reject(request, DONE)

    def _leave_all(self, step: Step) -> None:
        for request in step.running:
            self._leave(request.id, step)
