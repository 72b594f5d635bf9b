"""`vllm-v0`: prefill first, no chunking, as vLLM's first scheduler.

Sources: vLLM 0.6.3, `vllm/core/scheduler.py`; Vidur's reading of it (`vllm` scheduler at commit
7d47513), which the parameters select and whose recorded runs are our tests.
Needs to know: nothing but what runs, what waits and which blocks are free.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from schedsim.policies.base import Gate, Policy, PreemptMode
from schedsim.policies.vllm import check_watermark
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
    """

    name: ClassVar[str] = "vllm-v0"
    needs_free_block = True

    watermark: float = 0.01
    padded_budget: bool = False
    running_order: Literal["admission", "arrival"] = "admission"
    preemption: Literal["recompute", "swap"] = "recompute"

    def __post_init__(self) -> None:
        check_watermark(self.name, self.watermark)

    def default_token_budget(self, max_model_len: int) -> int:
        """As vLLM without chunked prefill: every prompt fits."""
        return max(max_model_len, 2048)

    def watermark_blocks(self, total_blocks: int) -> int:
        """Blocks that admission leaves free."""
        return int(self.watermark * total_blocks)

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse a prompt that no iteration can take, as vLLM does."""
        if request.prompt_tokens <= step.token_budget:
            return True
        step.reject(
            request,
            f"the prompt of {request.prompt_tokens} tokens exceeds the token budget of "
            f"{step.token_budget}, and this policy does not chunk",
        )
        return False

    def schedule(self, step: Step) -> None:
        """Prefill if anyone can be admitted, else decode, then swap in."""
        if step.num_swapped:
            step.run_decodes()
            if not step.preempted:
                step.admit_waiting()
        elif not step.admit_waiting():
            step.run_decodes()

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        """All or nothing; what preemption made longer than the budget runs alone."""
        chunks = step.chunks
        if not chunks:
            return tokens
        if self.padded_budget:
            longest = max(tokens, max(chunk.tokens for chunk in chunks))
            return tokens if (len(chunks) + 1) * longest <= step.token_budget else 0
        return tokens if tokens <= step.tokens_left else 0

    def mode(self, victim: Request, step: Step) -> PreemptMode:
        """As `preemption` says."""
        return PreemptMode(self.preemption)

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """Whether the prompt's blocks leave the watermark free, and nobody is swapped out."""
        if step.num_swapped and not request.is_swapped:
            # Who was never admitted came after all who were.
            return Gate.SKIP if request.preemptions else Gate.STOP
        need = step.blocks_to_admit(request, request.num_known_tokens)
        need += self.watermark_blocks(step.total_blocks)
        return Gate.ADMIT if need <= step.free_blocks else Gate.STOP
