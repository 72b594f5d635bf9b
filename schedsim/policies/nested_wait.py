"""`nested-wait`: hold requests back until enough of them stand at the same stage.

Sources: Ao, Luo, Simchi-Levi, Wang, "Optimizing LLM Inference: Fluid-Guided Online Scheduling with
Memory Constraints" (Nested WAIT), arXiv 2504.11320: abstract; the authors' published scheduler for
Vidur ("nested booking limit"), which was read: quotas from a limit on requests in flight, segments
opened in order, requests of closed ones waiting with their keys and values. Not taken over: at the
end of a trace it drops whoever is left. `max_wait` is ours.
Needs to know: what was emitted; which share of requests gets how far (given, or as seen so far).
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy
from schedsim.request import Request, Status
from schedsim.scheduler.step import Step

Stages = dict[int, list[Request]]


@dataclass(slots=True)
class NestedWait(Policy):
    """Segments of output length; each runs only if enough requests stand at its beginning.

    A request that has emitted g tokens stands at stage g, who waits or prefills at stage 0.
    `boundaries` cut the stages into segments: 64/256 makes 0 to 63, 64 to 255, and the rest. The
    quota of every stage of a segment is `in_flight` · share of requests that reach the segment /
    sum over the segments of stages · share, at least 1; the last segment counts as long as the one
    before. `reach` are the shares, as 1/0.6/0.3; without it they are those of who has finished.

    Segments are opened in order, up to the first at whose first stage fewer requests stand than its
    quota (at stage 0: and than there are seats). In an open segment up to the quota run of each
    stage, earliest admitted first, and up to the quota are admitted; all others are held and keep
    their blocks. That the engine rests while work waits is the idea. A request that has waited at
    stage 0 for `max_wait` seconds opens the first segment, and one that was held for as long runs
    in every iteration from then on: so the last of a trace, and those of a quiet hour, come to
    their end.

    Admission takes the blocks of all known tokens; a missing block is the latest admitted's.
    """

    name: ClassVar[str] = "nested-wait"

    boundaries: str = "64/256"
    reach: str = ""
    in_flight: int = 256
    max_wait: float = 1.0

    _ends: list[int] = field(init=False, repr=False)
    _quotas: list[int] = field(init=False, repr=False)
    _num_reached: list[int] = field(init=False, repr=False)
    _freed: dict[int, None] = field(default_factory=dict, init=False, repr=False)
    _places: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        ends = _numbers(self.boundaries)
        rises = all(low < high and high.is_integer() for low, high in pairwise([0.0, *ends]))
        if not (ends and rises):
            raise self._wrong("boundaries", "must be rising numbers of tokens, as 64/256")
        if self.in_flight < 1:
            raise self._wrong("in_flight", "is below 1")
        if not 0.0 <= self.max_wait < math.inf:
            raise self._wrong("max_wait", "must be finite and not negative")
        self._ends = [int(end) for end in ends]
        self._num_reached = [0] * (len(ends) + 1)
        shares = _numbers(self.reach) if self.reach else [1.0] * (len(ends) + 1)
        falls = all(1.0 >= high >= low > 0.0 for high, low in pairwise([1.0, *shares]))
        if len(shares) != len(ends) + 1 or not falls:
            raise self._wrong("reach", f"must be {len(ends) + 1} falling shares, as 1/0.6/0.3")
        self._set_quotas(shares)

    def schedule(self, step: Step) -> None:
        """Who was freed, decodes of open segments, prefills under way, and who is let in."""
        stages = self._group(step)
        first = step.first_waiting
        is_open = step.num_waiting >= min(self._quotas[0], step.seats) or (
            first is not None and first.arrival + self.max_wait <= step.now
        )
        self._places = self._quotas[0] if is_open else 0
        start = 0
        for quota, end in zip(self._quotas, [*self._ends, step.max_model_len], strict=True):
            if start:
                is_open = len(stages.get(start, ())) >= quota
            if not is_open:
                break
            for stage in stages:
                if start <= stage < end:
                    _run(stages[stage][:quota], step)
            start = end
        step.run_prefills()
        if self._places and not step.preempted:
            step.admit_waiting()

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """As many as the quota of stage 0."""
        return Gate.ADMIT if len(step.admitted) < self._places else Gate.STOP

    def reservation(self, request: Request, tokens: int) -> int:
        """All known tokens."""
        return request.num_known_tokens

    def wake_at(self, step: Step) -> float | None:
        """When somebody has waited or was held for long enough."""
        since = [r.last_token for r in step.running if r.last_token is not None]
        if step.first_waiting is not None:
            since.append(step.first_waiting.arrival)
        times = [time + self.max_wait for time in since]
        return min((time for time in times if time > step.now), default=None)

    def on_finish(self, request: Request, step: Step) -> None:
        """Its length tells how far requests get."""
        self._freed.pop(request.id, None)
        if self.reach:
            return
        reached = bisect_left(self._ends, request.num_generated_tokens)
        for segment in range(reached + 1):
            self._num_reached[segment] += 1
        everybody = self._num_reached[0] + 1  # one that gets to the end of all, for a start
        self._set_quotas([(number + 1) / everybody for number in self._num_reached])

    def _group(self, step: Step) -> Stages:
        """Who decodes and is not free, by stage, in running order; runs who is free."""
        stages: Stages = {}
        free = []
        for request in step.running:
            stage = request.num_computed_tokens + 1 - request.prompt_tokens
            if stage < 1 or request.num_tokens_left > 1:
                continue
            last = request.last_token
            if request.id in self._freed or (last is not None and last + self.max_wait <= step.now):
                self._freed[request.id] = None
                free.append(request)
            else:
                stages.setdefault(stage, []).append(request)
        _run(free, step)
        return stages

    def _set_quotas(self, shares: list[float]) -> None:
        """The quota of a stage, for each segment."""
        starts = [0, *self._ends]
        lengths = [end - start for start, end in pairwise(starts)]
        lengths.append(lengths[-1])
        total = sum(n * share for n, share in zip(lengths, shares, strict=True))
        self._quotas = [max(1, int(self.in_flight * share / total)) for share in shares]

    def _wrong(self, parameter: str, problem: str) -> ConfigError:
        return ConfigError(
            f"policy {self.name!r}: {parameter}={getattr(self, parameter)!r} {problem}"
        )


def _run(requests: list[Request], step: Step) -> None:
    """A token for each, unless memory has taken it for one before."""
    for request in requests:
        if request.status is Status.RUNNING:
            step.run(request)


def _numbers(text: str) -> list[float]:
    """Numbers between slashes; none if one is not a number."""
    try:
        return [float(number) for number in text.split("/")]
    except ValueError:
        return []
