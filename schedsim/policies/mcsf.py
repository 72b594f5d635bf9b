"""`mcsf`: memory-constrained shortest first: admit whom memory will hold until everybody ends.

Source: Jaillet, Jiang, Mellou, Molinaro, Podimata, Zhou, "Online Scheduling for LLM Inference with
KV Cache Constraints" (MC-SF), arXiv 2502.07115 v5: worked from detailed notes of its algorithm and
its experiments, which name the feasibility test and the baselines.
Needs to know: prompt lengths, predicted outputs, free blocks.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy
from schedsim.policies.occupancy import Occupancy, Stay
from schedsim.policies.preemptive import predicted_output
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class MCSF(Policy):
    """Admits the shortest predicted output first, as long as nobody will ever lack a block.

    A request is admitted if, at the predicted end of each that runs and of its own, the blocks of
    all that have not ended fit into the cache; the first that does not fit ends admission. Prompts
    are not chunked and every decode runs in every iteration, so an iteration is the paper's round:
    with exact predictions nobody is ever preempted (with a batch in flight, if the cache has a slot
    more than the longest request). `protection` is a share of the blocks that admission leaves free
    for wrong ones. Who outlives its prediction is expected to become twice as long, up to its
    limit; who then lacks a block preempts the latest admitted. A request that is alone is admitted
    whatever its prediction.

    Ignores what a prefix cache holds: it only makes more room than the test counts on.
    """

    name: ClassVar[str] = "mcsf"

    protection: float = 0.0

    _occupancy: Occupancy | None = field(default=None, init=False, repr=False)
    _expected: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _running: dict[int, Request] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.protection < 1.0:
            raise ConfigError(
                f"policy {self.name!r}: protection={self.protection} is not in [0, 1)"
            )

    def default_token_budget(self, max_model_len: int) -> int:
        """Every prompt fits."""
        return max(max_model_len, 2048)

    def schedule(self, step: Step) -> None:
        """All decodes, then whom memory will hold."""
        self._expect_longer(step)
        step.run_decodes()
        if not step.preempted:
            step.admit_waiting()

    def key(self, request: Request) -> float:
        """The predicted output that is left."""
        return self._outputs_left(request)

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """Whether everybody's blocks fit, at every predicted end."""
        if not step.num_running:
            return Gate.ADMIT
        blocks = step.total_blocks - int(self.protection * step.total_blocks)
        fits = self._memory(step).fits(self._stay(request, step), blocks)
        return Gate.ADMIT if fits else Gate.STOP

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        """The whole prompt, where the budget has room for it; a longer one runs alone."""
        runs_alone = step.tokens_left == step.token_budget
        return tokens if tokens <= step.tokens_left or runs_alone else 0

    def on_admit(self, request: Request, step: Step) -> None:
        """It holds blocks until its predicted end."""
        self._running[request.id] = request
        self._memory(step).add(request.id, self._stay(request, step))

    def on_preempt(self, request: Request, step: Step) -> None:
        """It holds nothing."""
        del self._running[request.id]
        self._memory(step).remove(request.id, step.iteration)

    def on_finish(self, request: Request, step: Step) -> None:
        """It holds nothing and is forgotten."""
        self._expected.pop(request.id, None)
        if self._running.pop(request.id, None) is not None:
            self._memory(step).remove(request.id, step.iteration)

    def _memory(self, step: Step) -> Occupancy:
        if self._occupancy is None:
            self._occupancy = Occupancy(step.block_size)
        return self._occupancy

    def _outputs_left(self, request: Request) -> int:
        """Output tokens that are expected still, at least one."""
        expected = self._expected.get(request.id)
        if expected is None:
            expected = min(math.ceil(predicted_output(request)), request.output_limit)
        return max(expected - request.num_generated_tokens, 1)

    def _stay(self, request: Request, step: Step) -> Stay:
        """From this iteration, which emits the first of its tokens, to the one that emits the last.

        With batches in flight its blocks come free so many decisions later.
        """
        last = step.iteration + self._outputs_left(request) - 1
        return Stay(step.iteration, request.num_known_tokens, last + step.decision_lag)

    def _expect_longer(self, step: Step) -> None:
        """Give another prediction to who is there beyond its predicted end."""
        memory = self._memory(step)
        for number in memory.overdue(step.iteration):
            request = self._running[number]
            generated = request.num_generated_tokens
            self._expected[number] = min(2 * max(generated, 1), request.output_limit)
            slots = request.num_computed_tokens + 1  # where its known tokens lag behind
            memory.add(number, self._stay(request, step)._replace(known=slots))
