"""`vllm`: the scheduler of vLLM v1, synchronous, first come first served.

Source: vLLM 0.33.0, `vllm/v1/core/sched/scheduler.py`; its recorded decisions are our tests.
Needs to know: nothing but what runs, what waits and which blocks are free.
"""

from dataclasses import dataclass
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class VLLM(Policy):
    """Running requests first, in admission order, then waiting ones; one token budget.

    Prompts are cut to the budget. A running request that lacks a block preempts the latest
    admitted one by recompute, and an iteration that preempted admits nobody. `whole_sequence`
    admits only what has blocks for all its known tokens (false: for its first chunk). `watermark`
    is the share of all blocks that admission leaves free while something runs.
    """

    name: ClassVar[str] = "vllm"

    whole_sequence: bool = True
    watermark: float = 0.0

    def __post_init__(self) -> None:
        check_watermark(self.name, self.watermark)

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


def check_watermark(policy: str, watermark: float) -> None:
    """Raise ConfigError unless `watermark` is a share of the blocks."""
    if not 0.0 <= watermark < 1.0:
        raise ConfigError(f"policy {policy!r}: watermark={watermark} is not in [0, 1)")
