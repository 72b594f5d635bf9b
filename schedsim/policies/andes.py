"""`andes`: serves whom it does most good, as readers of a text stream see it.

Source: Liu et al., "Andes: Defining and Enhancing Quality-of-Experience in LLM-Based Text Streaming
Services", arXiv 2404.16283; abstract and introduction read. The rest is from its authors' code,
AmberLJC/vllm at 1993472, `vllm/core/andes_utils` and the scheduler beside it (read): how good a
stream is, the greedy knapsack, that it runs in every fifth iteration once 90 % of the memory is
used, and that who was preempted once is left alone. There the values divide by blocks and the
first that does not fit ends the selection; here it is passed over, or others would be evicted for
nothing. Left out: trying several batch sizes, and the code's bonus for streams beyond 500 tokens.
Of the waiting only the `window` oldest are looked at; the code looks at all.
Needs to know: the targets of each request, or the run's, and an estimate of the step time.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy, PreemptMode
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class Andes(Policy):
    """First come, first served, until memory or seats are short; then a knapsack by experience.

    A reader takes in the first token at the TTFT target (`ttft` s where there is none) and then
    one every TPOT target (`tpot` s). With e tokens that should have come and n < e that have, the
    experience is 1 - ((e - n) / e)², else 1. The value of a request is what it would gain by being
    served for `horizon` seconds, at the estimated time of the decodes as they are; its weight are
    its blocks. Every `interval` iterations those of the largest value per block run, as many as
    have blocks and seats; the others are preempted, but nobody more than `preemption_cap` times.
    Where blocks are short in between, the least value per block goes. `preemption` says how;
    a swap without room in the host tier is a recompute.
    """

    name: ClassVar[str] = "andes"

    ttft: float = 1.0
    tpot: float = 0.2
    horizon: float = 10.0
    interval: int = 5
    contention: float = 0.9
    preemption_cap: int = 1
    preemption: Literal["recompute", "swap"] = "swap"
    window: int = 256

    _age: int = field(default=0, init=False, repr=False)
    _near: dict[int, Request] = field(default_factory=dict, init=False, repr=False)
    _far: deque[Request] = field(default_factory=deque, init=False, repr=False)

    def __post_init__(self) -> None:
        for parameter in ("ttft", "tpot", "horizon"):
            value = getattr(self, parameter)
            if not 0.0 < value < float("inf"):
                raise ConfigError(
                    f"policy {self.name!r}: {parameter}={value} must be finite and above 0"
                )
        for parameter, least in (("interval", 1), ("preemption_cap", 0), ("window", 1)):
            value = getattr(self, parameter)
            if value < least:
                raise ConfigError(f"policy {self.name!r}: {parameter}={value} is below {least}")
        if not 0.0 <= self.contention <= 1.0:
            raise ConfigError(
                f"policy {self.name!r}: contention={self.contention} is not in [0, 1]"
            )

    def schedule(self, step: Step) -> None:
        """As vLLM where there is room for all, else choose."""
        used = step.total_blocks - step.free_blocks
        is_short = step.seats <= 0 or used >= self.contention * step.total_blocks
        self._age += 1
        chosen: list[Request] = []
        if is_short and step.num_running and self._near and self._age >= self.interval:
            self._age = 0
            chosen = self._choose(step)
        step.run_decodes()
        step.run_prefills()
        if not is_short and not step.preempted:
            step.admit_waiting()
        for request in chosen:
            if step.tokens_left <= 0 or step.seats <= 0:
                break
            if self.gate(request, 0, step) is Gate.ADMIT and request not in step.preempted:
                step.admit(request, min(request.num_tokens_left, step.tokens_left))

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """Whether all known tokens have blocks."""
        need = step.blocks_to_admit(request, request.num_known_tokens)
        return Gate.ADMIT if need <= step.free_blocks else Gate.STOP

    def victim(self, needy: Request, step: Step) -> Request | None:
        """The least value per block, of those who may be preempted if there are any."""
        token_s = self._token_seconds(step)

        def worth(request: Request) -> tuple[bool, float, int]:
            return self._is_spared(request), self._density(request, step, token_s), -request.id

        return min(step.running, key=worth)

    def mode(self, victim: Request, step: Step) -> PreemptMode:
        """As `preemption` says."""
        return PreemptMode(self.preemption)

    def on_arrival(self, request: Request, step: Step) -> None:
        """It is looked at once it is among the oldest in line."""
        if len(self._near) < self.window:
            self._near[request.id] = request
        else:
            self._far.append(request)

    def on_admit(self, request: Request, step: Step) -> None:
        """The next one moves up."""
        self._leave(request)

    def on_preempt(self, request: Request, step: Step) -> None:
        """It is looked at at once."""
        self._near[request.id] = request

    def on_finish(self, request: Request, step: Step) -> None:
        """It may have ended in line, with a token that was in flight."""
        if request.id in self._near:
            self._leave(request)

    def check(self, waiting: Iterable[Request]) -> None:
        """Assert that the two parts of the line are `waiting`; O(n log n)."""
        parts = sorted([*self._near, *(request.id for request in self._far)])
        assert parts == sorted(request.id for request in waiting), "the line has lost a request"

    def _leave(self, request: Request) -> None:
        """One of the oldest in line leaves it, and the next one moves up."""
        del self._near[request.id]
        if self._far and len(self._near) < self.window:
            following = self._far.popleft()
            self._near[following.id] = following

    def _choose(self, step: Step) -> list[Request]:
        """Preempt who is not worth its blocks; those to admit instead, the most worth first."""
        token_s = self._token_seconds(step)
        running = step.running
        ranked = [
            (
                not self._is_spared(request),
                -self._density(request, step, token_s),
                request.id,
                request,
            )
            for request in running
        ]
        ranked += [
            (True, -self._density(request, step, token_s), request.id, request)
            for request in self._near.values()
        ]
        runs = {request.id for request in running}
        ranked.sort()
        blocks = step.total_blocks
        seats = step.seats + len(running)
        chosen: list[Request] = []
        evicted: list[Request] = []
        for _, _, number, request in ranked:
            need = step.blocks_for(request.num_known_tokens + 1)
            if seats > 0 and need <= blocks:
                blocks -= need
                seats -= 1
                if number not in runs:
                    chosen.append(request)
            elif number in runs:
                evicted.append(request)
        if chosen:
            for request in evicted:
                step.preempt(request)
        return chosen

    def _is_spared(self, request: Request) -> bool:
        return request.preemptions >= self.preemption_cap

    def _token_seconds(self, step: Step) -> float:
        shape = step.decode_shape
        shape.decode_requests = max(shape.decode_requests, 1)
        return step.estimate(shape)

    def _density(self, request: Request, step: Step, token_s: float) -> float:
        """What being served for the horizon gains, a block."""
        ttft = self.ttft if request.ttft_slo is None else request.ttft_slo
        tpot = self.tpot if request.tpot_slo is None else request.tpot_slo
        expected = (step.now + self.horizon - request.arrival - ttft) / tpot
        if expected <= 0.0:
            return 0.0
        emitted = request.num_generated_tokens
        gain = _experience(emitted + self.horizon / token_s, expected)
        gain -= _experience(emitted, expected)
        return gain / step.blocks_for(request.num_known_tokens + 1)


def _experience(tokens: float, expected: float) -> float:
    if tokens >= expected:
        return 1.0
    missing = (expected - tokens) / expected
    return 1.0 - missing * missing
