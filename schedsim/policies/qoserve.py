"""`qoserve`: deadlines and short prompts blended, chunks as large as the decodes' slack allows.

Source: Goel et al., "QoServe: Breaking the Silos of LLM Inference Serving" (earlier "Niyama"),
ASPLOS'26, sections 3.2 to 3.6 and algorithm 1 (read); its artifact, microsoft/sarathi-serve at
72339db, `deadline_scheduler.py` and `sequence.py` (read). From the artifact: the grid and the
margin of the chunk search, a late first token moving the deadlines of those after it, relegation of
requests that hold no memory yet, the deadline of the non-interactive class (600 s; 1,800 s in its
third tier) and its pace of 0.4 s a token (in its experiments). There a lottery assigns the tiers;
here the class is who has no target for its first token. Left out: the sweep that adapts alpha to
the load, and preferring to relegate the free tier, which the artifact leaves out as well:
priorities only order who is relegated. The artifact never preempts for memory; here the latest
admitted is recomputed.
Needs to know: the targets of each request, or the run's, and an estimate of the step time; of the
non-interactive class predicted outputs.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy
from schedsim.policies.deadlines import run_prefills_by
from schedsim.request import Request, Status
from schedsim.scheduler.step import Step

CHUNK_UNIT = 128
"""Chunks are searched in steps of this many tokens, as the artifact's grid of 128 to 2,552."""


@dataclass(slots=True)
class _Decodes:
    """When the next token of the most urgent decode is due, without a look at the others.

    All decodes advance together, so within one TPOT target they keep their order: `lines` holds,
    for each target, (due in iteration 0, id). `iterations` counts those that ran the decodes. A
    look costs O(targets) and O(log n) for everyone who left since the last one.
    """

    iterations: int = 0
    lines: dict[float, list[tuple[float, int]]] = field(default_factory=dict)
    members: dict[int, tuple[float, int]] = field(default_factory=dict)

    def join(self, request: Request, tpot: float, second_token_due: float) -> None:
        """`request` decodes from the next iteration on, a token due every `tpot` seconds."""
        entry = (second_token_due - tpot * self.iterations, request.id)
        self.members[request.id] = entry
        heappush(self.lines.setdefault(tpot, []), entry)

    def leave(self, request: Request) -> None:
        """`request` decodes no more, if it did."""
        self.members.pop(request.id, None)

    def next_due(self) -> float:
        """The earliest time at which a token of the next iteration is due; inf if none is."""
        earliest = math.inf
        for tpot in list(self.lines):
            line = self.lines[tpot]
            while line and self.members.get(line[0][1]) is not line[0]:
                heappop(line)
            if line:
                earliest = min(earliest, line[0][0] + tpot * self.iterations)
            else:
                del self.lines[tpot]
        return earliest


@dataclass(slots=True)
class QoServe(Policy):
    """Every decode first, then prefills by arrival + target + `alpha_ms` a token that is left.

    `alpha_ms` 0 is earliest deadline first, a large one shortest prompt first. The chunk of an
    iteration is the largest multiple of 128 tokens up to `max_chunk`, decodes included, whose
    estimated time, with a `margin`, ends before the first decode is due, and 128 if none does. A
    waiting request that cannot make its first token in time any more, at the speed of this
    iteration, is relegated, once and for good: it stands behind all others. A prefill that is under
    way is passed over for one that ranks before it, unless one iteration's delay would make it
    late. Admission takes the blocks of all known tokens, so prefills never lack any.

    Who has no target for its first token is of the non-interactive class: its last one is due
    `ttlt` seconds after its arrival. With `batch_tpot` seconds for each token that is predicted, or
    `expected_output` of them and at most its limit where nothing is, that is when its first one is
    due; the others follow at that pace, or at its own target's.
    """

    name: ClassVar[str] = "qoserve"

    alpha_ms: float = 8.0
    max_chunk: int = 2560
    margin: float = 1.2
    relegation: bool = True
    ttlt: float = 600.0
    batch_tpot: float = 0.4
    expected_output: int = 256

    _relegated: dict[int, None] = field(default_factory=dict, init=False, repr=False)
    _decodes: _Decodes = field(default_factory=_Decodes, init=False, repr=False)
    _started: list[tuple[Request, int]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for parameter in ("ttlt", "batch_tpot", "expected_output"):
            value = getattr(self, parameter)
            if not 0.0 < value < math.inf:
                raise ConfigError(f"policy {self.name!r}: {parameter}={value} is not in (0, inf)")
        if not 0.0 <= self.alpha_ms < math.inf:
            raise ConfigError(f"policy {self.name!r}: alpha_ms={self.alpha_ms} is not in [0, inf)")
        if self.max_chunk < CHUNK_UNIT:
            raise ConfigError(
                f"policy {self.name!r}: max_chunk={self.max_chunk} is below {CHUNK_UNIT}"
            )
        if not 1.0 <= self.margin < math.inf:
            raise ConfigError(f"policy {self.name!r}: margin={self.margin} is not in [1, inf)")

    def default_token_budget(self, max_model_len: int) -> int:
        """The largest chunk."""
        return self.max_chunk

    def schedule(self, step: Step) -> None:
        """Decodes, then as many prefill tokens as their slack allows."""
        for request, emitted in self._started:
            self._join_decodes(request, emitted, step)
        decodes = step.num_running - step.num_prefilling
        step.run_decodes()
        if step.num_prefilling or (step.num_waiting and not step.preempted):
            seconds = self._size_chunk(step)
            pace = seconds / max(step.tokens_left, 1)
            run_prefills_by(
                partial(self._rank, step.now, seconds, pace), step, partial(self._admit, pace)
            )
        if decodes:
            self._decodes.iterations += 1
        self._started = [
            (chunk.request, chunk.request.num_generated_tokens + 1)
            for chunk in step.chunks
            if chunk.tokens == chunk.request.num_tokens_left
        ]

    def key(self, request: Request) -> tuple[int, int, float]:
        """The relegated last and by priority; then deadline and work left."""
        due = self._first_token_due(request)
        rank = due + request.num_tokens_left * self.alpha_ms * 1e-3
        return (1, request.priority, rank) if request.id in self._relegated else (0, 0, rank)

    def on_preempt(self, request: Request, step: Step) -> None:
        """It decodes no more."""
        self._decodes.leave(request)

    def on_finish(self, request: Request, step: Step) -> None:
        """Forget it."""
        self._decodes.leave(request)
        self._relegated.pop(request.id, None)

    def check(self, waiting: Iterable[Request]) -> None:
        """Assert that who waits has no token due; O(n)."""
        assert not any(r.id in self._decodes.members for r in waiting), "a decode waits"

    def _join_decodes(self, request: Request, emitted: int, step: Step) -> None:
        """The last decision ran what was left to prefill of `request`: that is token `emitted`."""
        tpot = self._pace(request) if request.ttft_slo is None else request.tpot_slo
        if request.status is not Status.RUNNING or tpot is None:
            return
        # Where the first token is in flight it comes now at the earliest.
        came = step.now if request.first_token is None else request.first_token
        first = max(self._first_token_due(request), came)
        self._decodes.join(request, tpot, first + emitted * tpot)

    def _first_token_due(self, request: Request) -> float:
        """When the first token should come."""
        if request.ttft_slo is not None:
            return request.arrival + request.ttft_slo
        expected = request.predicted_output
        if expected is None:
            expected = min(self.expected_output, request.output_limit)
        return request.arrival + self.ttlt - expected * self._pace(request)

    def _pace(self, request: Request) -> float:
        """Seconds between tokens of the non-interactive class."""
        return self.batch_tpot if request.tpot_slo is None else request.tpot_slo

    def _size_chunk(self, step: Step) -> float:
        """Cut `step.tokens_left` to what the slack allows; the seconds that the iteration takes."""
        decodes = step.token_budget - step.tokens_left
        slack = self._decodes.next_due() - step.now
        low, high = 1, min(step.token_budget, self.max_chunk) // CHUNK_UNIT
        while low < high:
            units = (low + high + 1) // 2
            if _seconds(step, units * CHUNK_UNIT - decodes) * self.margin <= slack:
                low = units
            else:
                high = units - 1
        step.tokens_left = max(0, min(step.tokens_left, low * CHUNK_UNIT - decodes))
        return _seconds(step, step.tokens_left)

    def _rank(
        self, now: float, seconds: float, pace: float, request: Request
    ) -> tuple[int, int, float]:
        """`key`, but first of all prefills under way that an iteration's delay would make late."""
        if request.status is Status.RUNNING:
            done = now + request.num_tokens_left * pace
            if done <= self._first_token_due(request) < done + seconds:
                return (-1, 0, 0.0)
        return self.key(request)

    def _admit(self, pace: float, request: Request, step: Step) -> bool:
        """Admit the head of the line, or relegate it; False if it has to wait."""
        if self.relegation and not (request.preemptions or request.id in self._relegated):
            done = step.now + request.num_tokens_left * pace
            if done > self._first_token_due(request):
                self._relegated[request.id] = None
                step.rekey(request)
                return True
        known = request.num_known_tokens
        if step.seats <= 0 or step.blocks_to_admit(request, known) > step.free_blocks:
            return False
        return step.admit(request, min(request.num_tokens_left, step.tokens_left), known)


def _seconds(step: Step, tokens: int) -> float:
    """The estimated time of the decodes and a chunk of `tokens`.

    Its context, which differs with the prompt that it comes from, is left out.
    """
    shape = step.decode_shape
    if tokens > 0:
        shape.add_chunk(tokens)
    return 0.0 if shape.is_empty else step.estimate(shape)
