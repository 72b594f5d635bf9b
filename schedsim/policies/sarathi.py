"""`sarathi`: stall-free batching with chunked prefills.

Sources: Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve",
OSDI'24, algorithm 3; Vidur's `sarathi` scheduler (commit 7d47513), whose recorded run is our test;
for the falling chunk `sarathi/core/scheduler/sarathi_scheduler.py` at 13f16cf, read in the source.
Needs to know: nothing but what runs, what waits and which blocks are free.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy, while_full
from schedsim.policies.vllm import check_watermark
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class Sarathi(Policy):
    """Every decode first, then unfinished prefills, then new ones, `chunk_size` tokens in all.

    Decodes always pass, even beyond `chunk_size`. Admission takes the blocks of the whole prompt
    at once, beside a `watermark`, so a prefill never fails later. It replaces the token budget.

    With `low_chunk_size` the chunk falls as a prompt goes on, since attention to what is computed
    costs more and more: from `chunk_size` to that, in `stages` equal steps over the first
    `falling_tokens` tokens, each a multiple of 32 (or of a smaller `low_chunk_size`). A prompt then
    gets what all before it have left of its own chunk.
    """

    name: ClassVar[str] = "sarathi"
    needs_free_block = True

    chunk_size: int = 512
    watermark: float = 0.01
    low_chunk_size: int | None = None
    falling_tokens: int = 8192
    stages: int = 16

    _sizes: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for parameter in ("chunk_size", "falling_tokens", "stages"):
            if getattr(self, parameter) < 1:
                value = getattr(self, parameter)
                raise ConfigError(f"policy {self.name!r}: {parameter}={value} is below 1")
        low = self.low_chunk_size
        if low is not None and not 1 <= low <= self.chunk_size:
            raise ConfigError(
                f"policy {self.name!r}: low_chunk_size={low} is not from 1 to chunk_size="
                f"{self.chunk_size}"
            )
        check_watermark(self.name, self.watermark)
        self._sizes = [self.chunk_size] if low is None else self._falling_sizes(low)

    def watermark_blocks(self, total_blocks: int) -> int:
        """Blocks that admission leaves free."""
        return int(self.watermark * total_blocks)

    def budget(self, step: Step) -> int:
        """The largest chunk size, shared by all prefills of the iteration."""
        return self._sizes[0]

    def schedule(self, step: Step) -> None:
        """Decodes, then unfinished prefills, then new requests."""
        step.run_decodes()
        step.run_prefills()
        step.admit_waiting()

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        """What is left of the chunk size at this point of the prompt."""
        left = step.tokens_left
        if self.low_chunk_size is not None:
            begun = request.num_known_tokens - tokens
            stage = begun // -(-self.falling_tokens // self.stages)
            left -= self._sizes[0] - self._sizes[min(stage, self.stages - 1)]
        return max(min(tokens, left), 0)

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """Whether the blocks of the whole prompt leave the watermark free."""
        need = step.blocks_to_admit(request, request.num_known_tokens)
        need += self.watermark_blocks(step.total_blocks)
        return Gate.ADMIT if need <= step.free_blocks else Gate.STOP

    def reservation(self, request: Request, tokens: int) -> int:
        """All known tokens."""
        return request.num_known_tokens

    def steady(self, step: Step) -> int:
        """While there is no room for anybody."""
        return while_full(step)

    def _falling_sizes(self, low: int) -> list[int]:
        """The chunk size of each stage, largest first."""
        unit = min(32, low)
        steps = max(self.stages - 1, 1)
        return [
            round(Fraction(low + (self.chunk_size - low) * step // steps, unit)) * unit
            for step in reversed(range(self.stages))
        ]
