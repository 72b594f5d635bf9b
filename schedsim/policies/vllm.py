"""`vllm`: the scheduler of vLLM v1, and its versions by name, `vllm@0.33` and older.

Sources: `vllm/v1/core/sched/scheduler.py`, the KV cache manager and the block pool beside it, of
vLLM 0.33.0, 0.19.0 and 0.11.0; their own recorded decisions are our test (`schedsim conform`).
Needs to know: nothing but what runs, what waits and which blocks are free.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy, while_full
from schedsim.request import Request, Status
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class _Cadence:
    """What `prefill_interval` has to remember.

    `defers`: this iteration computes no prefill; `prefilled`: it planned one. `backlog`: somebody
    waited still after the last look at the line. Iterations that run something are counted.
    """

    defers: bool = False
    prefilled: bool = False
    backlog: bool = False
    executed: int = 0
    last_prefill: int | None = None

    def begin(self, step: Step, interval: int) -> None:
        """Before anything is planned."""
        self.prefilled = False
        self.defers = (
            self.last_prefill is not None
            and self.executed + 1 - self.last_prefill < interval
            and not self.backlog
            and step.num_running > step.num_prefilling
        )

    def end(self, step: Step) -> None:
        """When all is planned."""
        if not (step.preempted or self.defers):
            self.backlog = step.num_waiting > 0
        if step.tokens_left < step.token_budget:
            self.executed += 1
        admitted = {request.id for request in step.admitted}
        for chunk in step.chunks:
            left = chunk.request.num_known_tokens - chunk.context
            self.prefilled |= chunk.request.id not in admitted or left > 1
        if self.prefilled:
            self.last_prefill = self.executed


@dataclass(slots=True)
class VLLM(Policy):
    """Running requests first, in admission order, then waiting ones; one token budget.

    Prompts are cut to the budget. A running request that lacks a block preempts the latest
    admitted one by recompute, and an iteration that preempted admits nobody. All as vLLM 0.33 does,
    decided synchronously.

    `policy` is fcfs, or priority: who waits is admitted by (priority, arrival), smallest first, and
    the victim is the largest of all that run, even where the iteration has planned it already; if
    that is the needy one itself, the iteration goes on with the next. `whole_sequence` admits only
    what has blocks for all its known tokens (false: for its first chunk). `watermark` is the share
    of all blocks that admission leaves free while something runs. `long_prefill_threshold` caps a
    request's chunk (0: no cap), unless it is alone; with `adaptive_threshold` never below an equal
    share of the budget. Without `chunked_prefill` a prompt that the budget cuts ends admission.
    `prefill_interval` k computes no prefill in an iteration less than k after the last one that
    did, as long as something decodes and the last look at the waiting line emptied it.
    """

    name: ClassVar[str] = "vllm"
    waives_lone_threshold: ClassVar[bool] = True
    """Whether the cap on a chunk is off for a request that is alone, running or waiting."""

    policy: Literal["fcfs", "priority"] = "fcfs"
    whole_sequence: bool = True
    watermark: float = 0.0
    long_prefill_threshold: int = 0
    adaptive_threshold: bool = False
    chunked_prefill: bool = True
    prefill_interval: int = 1

    # A factory, so that a subclass without slots has one as well.
    _cadence: _Cadence = field(default_factory=_Cadence, init=False, repr=False)

    def __post_init__(self) -> None:
        check_watermark(self.name, self.watermark)
        for parameter, least in (("long_prefill_threshold", 0), ("prefill_interval", 1)):
            value = getattr(self, parameter)
            if value < least:
                raise ConfigError(f"policy {self.name!r}: {parameter}={value} is below {least}")

    def default_token_budget(self, max_model_len: int) -> int:
        """vLLM's; without chunks every prompt fits."""
        return 2048 if self.chunked_prefill else max(max_model_len, 2048)

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse what might never fit into the budget again; vLLM does not even start like that."""
        longest = request.prompt_tokens + request.output_limit - 1
        if self.chunked_prefill or longest <= step.token_budget:
            return True
        step.reject(
            request,
            f"prompt and output limit may grow to {longest} tokens to compute at once, the token "
            f"budget is {step.token_budget}, and chunked_prefill is off",
        )
        return False

    def schedule(self, step: Step) -> None:
        """Run what runs, then admit; keep count of prefills if they have an interval."""
        if self.prefill_interval > 1:
            self._cadence.begin(step, self.prefill_interval)
        step.run_running()
        if not step.preempted:
            step.admit_waiting()
        if self.prefill_interval > 1:
            self._cadence.end(step)

    def key(self, request: Request) -> float | tuple[int, float]:
        """By arrival, or by priority first."""
        if self.policy == "priority":
            return request.priority, request.arrival
        return request.arrival

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        """What the cap and the budget leave; 0 where prefills are put off."""
        waits = request.status is not Status.RUNNING
        # A waiting request with one token left costs what a decode costs, and passes.
        if self._cadence.defers and not (waits and tokens == 1):
            return 0
        threshold = self.long_prefill_threshold
        if threshold:
            others = step.num_running + step.num_waiting
            if self.adaptive_threshold:
                threshold = max(threshold, step.token_budget // others)
            if others > 1 or not self.waives_lone_threshold:
                tokens = min(tokens, threshold)
        if waits and tokens > step.tokens_left and not self.chunked_prefill:
            return 0
        return min(tokens, step.tokens_left)

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """vLLM's memory test: for the chunk or the whole sequence, beside the watermark."""
        tested = request.num_known_tokens
        if not self.whole_sequence:
            tested = step.cached_tokens(request) + tokens
        need = step.blocks_to_admit(request, tested)
        if self.watermark and step.num_running:
            # vLLM counts its null block among the blocks.
            need += int(self.watermark * (step.total_blocks + 1))
        return Gate.ADMIT if need <= step.free_blocks else Gate.STOP

    def steady(self, step: Step) -> int:
        """While there is no room for anybody, unless prefills are counted."""
        return 1 if self.prefill_interval > 1 else while_full(step)

    def victim(self, needy: Request, step: Step) -> Request | None:
        """The latest admitted, or the least urgent of all."""
        self._cadence.prefilled |= bool(step.chunks)  # vLLM counts a prefill that it drops again
        if self.policy == "priority":
            return max(step.running, key=urgency)
        return step.last_running()


@dataclass(slots=True)
class VLLM033(VLLM):
    """`vllm` as the engine of vLLM 0.33 starts it: with prefix caching and one batch in flight.

    With `policy` priority its cache also has stale keys (`--memory` paged), which this leaves out.
    """

    name: ClassVar[str] = "vllm@0.33"
    default_memory: ClassVar[str] = "paged,prefix_caching=true"
    default_decision_lag: ClassVar[int] = 1


@dataclass(slots=True)
class VLLM019(VLLM):
    """`vllm` as vLLM 0.19: the cap on chunks binds a lone request too, and blocks are used in turn.

    With `policy` priority a request that is its own victim ends the running requests' turn. Freed
    blocks go to the end of the free list. `watermark`, `adaptive_threshold` and `prefill_interval`
    came later: leave them. Read in the source and compared, synchronously, with its decisions. Read
    only, and not modelled: asynchronously with priority, a victim that stands before the needy one
    and was passed over makes the turn skip one more.
    """

    name: ClassVar[str] = "vllm@0.19"
    default_memory: ClassVar[str] = "paged,prefix_caching=true,free_order=back"
    default_decision_lag: ClassVar[int] = 1
    waives_lone_threshold: ClassVar[bool] = False
    stops_at_own_preemption: ClassVar[bool] = True


@dataclass(slots=True)
class VLLM011(VLLM019):
    """`vllm` as vLLM 0.11: as 0.19, but admission tests the first chunk alone; always chunks.

    It decides synchronously by default. Compared with its decisions under fcfs. Read only, and not
    modelled: with `policy` priority it leaves a victim that it had planned already in the batch,
    does not give its tokens back to the budget and passes over the request that follows; here the
    victim is dropped, as in 0.19.
    """

    name: ClassVar[str] = "vllm@0.11"
    default_decision_lag: ClassVar[int] = 0

    whole_sequence: bool = False

    def __post_init__(self) -> None:
        VLLM019.__post_init__(self)
        if not self.chunked_prefill:
            raise ConfigError(f"policy {self.name!r}: chunked_prefill=false, but 0.11 has no such")


def check_watermark(policy: str, watermark: float) -> None:
    """Raise ConfigError unless `watermark` is a share of the blocks."""
    if not 0.0 <= watermark < 1.0:
        raise ConfigError(f"policy {policy!r}: watermark={watermark} is not in [0, 1)")


def urgency(request: Request) -> tuple[int, float, int]:
    """Largest is whom priority scheduling gives up first; the id stands for a finer arrival."""
    return request.priority, request.arrival, request.id
