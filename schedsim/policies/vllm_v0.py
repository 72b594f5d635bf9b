"""`vllm-v0`: prefill first, no chunking, as vLLM's first scheduler.

Sources: vLLM 0.6.3.post1, `vllm/core/scheduler.py`, read in the source; Vidur's reading of it
(`vllm` scheduler at commit 7d47513), which `padded_budget` and `running_order` arrival select and
whose recorded runs are our tests.
Needs to know: nothing but what runs, what waits and which blocks are free.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy, PreemptMode, while_full
from schedsim.policies.reserving import fits_budget
from schedsim.policies.vllm import check_watermark, urgency
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class VLLMv0(Policy):
    """An iteration prefills whole prompts if any can be admitted, else it decodes everything.

    `watermark` is the share of blocks that admission leaves free. With `padded_budget` a prefill
    batch counts requests × longest prompt against the token budget. `running_order` is by
    admission, or by arrival as in Vidur; the victim of a missing block is its last request. With
    `preemption` swap nobody new is admitted while anyone is swapped out; those come back after the
    decodes of an iteration that preempted nobody.

    With `policy` priority who waits is admitted by (priority, arrival), smallest first. Where
    nobody could be admitted, running requests that are less urgent than the head of the line are
    preempted, the least urgent first, until it fits or there are none; it is admitted in the next
    iteration. The victim of a missing block is the least urgent of all. (vLLM sorts new arrivals
    in only then, here they are in order at once.)

    `delay_factor`: no prefill while something runs and the head has waited less than that many
    times the last prefill's duration.

    With `chunked` an iteration runs those who run in their order, chunks of prompts included, then
    takes back who was swapped out, then admits, all within the token budget; admission takes the
    blocks of the whole prompt. (In vLLM a chunk also needs a free block, as
    a decode does; and who was swapped in comes to the front, not to the end.)
    """

    name: ClassVar[str] = "vllm-v0"
    needs_free_block = True

    watermark: float = 0.01
    padded_budget: bool = False
    running_order: Literal["admission", "arrival"] = "admission"
    preemption: Literal["recompute", "swap"] = "recompute"
    policy: Literal["fcfs", "priority"] = "fcfs"
    delay_factor: float = 0.0
    chunked: bool = False

    _prefilled_at: float | None = field(default=None, init=False, repr=False)
    _prefill_seconds: float = field(default=0.0, init=False, repr=False)
    _urgent_run: Request | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_watermark(self.name, self.watermark)
        if not 0.0 <= self.delay_factor < math.inf:
            raise ConfigError(
                f"policy {self.name!r}: delay_factor={self.delay_factor} must be finite and not "
                "negative"
            )
        for one, other, both in (
            ("policy=priority", "chunked=true", self.policy == "priority" and self.chunked),
            (
                "policy=priority",
                "preemption=swap",
                self.policy == "priority" and self.preemption == "swap",
            ),
            ("delay_factor", "chunked=true", self.delay_factor > 0.0 and self.chunked),
            ("padded_budget=true", "chunked=true", self.padded_budget and self.chunked),
        ):
            if both:
                raise ConfigError(
                    f"policy {self.name!r}: {one} and {other} do not go together (in vLLM one of "
                    "them is without effect); leave one out"
                )

    def default_token_budget(self, max_model_len: int) -> int:
        """vLLM's; without chunks every prompt fits."""
        return 512 if self.chunked else max(max_model_len, 2048)

    def watermark_blocks(self, total_blocks: int) -> int:
        """Blocks that admission leaves free."""
        return int(self.watermark * total_blocks)

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse a prompt that no iteration can take, as vLLM does."""
        return self.chunked or fits_budget(request, request.prompt_tokens, step)

    def schedule(self, step: Step) -> None:
        """Prefill if anyone can be admitted, else decode, then swap in; or all in one."""
        if self.delay_factor:
            self._note_prefill(step)
        if self.chunked:
            step.run_running()
            self._admit(step)
        elif step.num_swapped:
            step.run_decodes()
            if not step.preempted:
                step.admit_waiting()
        elif not self._admit(step):
            if self.policy == "priority":
                self._make_way(step)
            step.run_decodes()

    def key(self, request: Request) -> float | tuple[int, float]:
        """By arrival, or by priority first."""
        if self.policy == "priority":
            return request.priority, request.arrival
        return request.arrival

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        """All or nothing; what preemption made longer than the budget runs alone."""
        if self.chunked:
            return min(tokens, step.tokens_left)
        chunks = step.chunks
        if not chunks:
            return tokens
        if self.padded_budget:
            longest = max(tokens, max(chunk.tokens for chunk in chunks))
            return tokens if (len(chunks) + 1) * longest <= step.token_budget else 0
        return tokens if tokens <= step.tokens_left else 0

    def reservation(self, request: Request, tokens: int) -> int:
        """All known tokens."""
        return request.num_known_tokens

    def victim(self, needy: Request, step: Step) -> Request | None:
        """The last of the running list, or the least urgent."""
        if self.policy == "priority":
            return max(step.running, key=urgency)
        return step.last_running()

    def mode(self, victim: Request, step: Step) -> PreemptMode:
        """As `preemption` says."""
        return PreemptMode(self.preemption)

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """Whether the prompt's blocks leave the watermark free, and nobody is swapped out."""
        if step.num_swapped and not request.is_swapped and not self.chunked:
            # Who was never admitted came after all who were.
            return Gate.SKIP if request.preemptions else Gate.STOP
        if step.preempted and (request.is_swapped or request in step.preempted):
            return Gate.SKIP
        if self._has_blocks(request, step):
            return Gate.ADMIT
        # New prompts need not wait for who is swapped out where they share an iteration.
        return Gate.SKIP if request.is_swapped and self.chunked else Gate.STOP

    def steady(self, step: Step) -> int:
        """While there is no room for anybody, and no head of the line whose time may come."""
        if step.num_waiting and (self.delay_factor or step.num_swapped or self.policy != "fcfs"):
            return 1
        return while_full(step)

    def on_admit(self, request: Request, step: Step) -> None:
        """It may be less urgent than the head of the line."""
        self._urgent_run = None

    def _has_blocks(self, request: Request, step: Step) -> bool:
        need = step.blocks_to_admit(request, request.num_known_tokens)
        return need + self.watermark_blocks(step.total_blocks) <= step.free_blocks

    def _make_way(self, step: Step) -> None:
        """Preempt who is less urgent than the head of the line until that fits."""
        head = step.first_waiting
        # Unless somebody is admitted, who runs stays as urgent as it was found to be.
        if head is None or head is self._urgent_run:
            return
        for request in sorted(step.running, key=urgency, reverse=True):
            if step.seats > 0 and self._has_blocks(head, step):
                return
            if urgency(request) <= urgency(head):
                break
            step.preempt(request, PreemptMode.RECOMPUTE)
        self._urgent_run = head

    def _note_prefill(self, step: Step) -> None:
        if self._prefilled_at is not None:
            self._prefill_seconds = step.now - self._prefilled_at
            self._prefilled_at = None

    def _admit(self, step: Step) -> int:
        """Admit unless the head has to wait a little longer for others to come."""
        head = step.first_waiting
        if self.delay_factor and head is not None and step.num_running:
            waited = step.now - head.arrival
            if waited <= self.delay_factor * self._prefill_seconds:
                return 0
        admitted = step.admit_waiting()
        if admitted:
            self._prefilled_at = step.now
        return admitted
