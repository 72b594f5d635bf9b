"""`sarathi`: stall-free batching with chunked prefills.

Sources: Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve",
OSDI'24, algorithm 3; Vidur's `sarathi` scheduler (commit 7d47513), whose recorded run is our test.
Needs to know: nothing but what runs, what waits and which blocks are free.
"""

from dataclasses import dataclass
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy
from schedsim.policies.vllm import check_watermark
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class Sarathi(Policy):
    """Every decode first, then unfinished prefills, then new ones, `chunk_size` tokens in all.

    Decodes always pass, even beyond `chunk_size`. Admission takes the blocks of the whole prompt
    at once, beside a `watermark`, so a prefill never fails later. It replaces the token budget.
    """

    name: ClassVar[str] = "sarathi"
    needs_free_block = True

    chunk_size: int = 512
    watermark: float = 0.01

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise ConfigError(f"policy {self.name!r}: chunk_size={self.chunk_size} is below 1")
        check_watermark(self.name, self.watermark)

    def watermark_blocks(self, total_blocks: int) -> int:
        """Blocks that admission leaves free."""
        return int(self.watermark * total_blocks)

    def budget(self, step: Step) -> int:
        """The chunk size, shared by all prefills of the iteration."""
        return self.chunk_size

    def schedule(self, step: Step) -> None:
        """Decodes, then unfinished prefills, then new requests."""
        step.run_decodes()
        step.run_prefills()
        step.admit_waiting()

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """Whether the blocks of the whole prompt leave the watermark free."""
        need = step.blocks_to_admit(request, request.num_known_tokens)
        need += self.watermark_blocks(step.total_blocks)
        return Gate.ADMIT if need <= step.free_blocks else Gate.STOP

    def reservation(self, request: Request, tokens: int) -> int:
        """All known tokens."""
        return request.num_known_tokens
