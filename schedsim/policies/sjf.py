"""`sjf`: shortest predicted job first, without preemption.

Sources: the classic rule; Qiu et al., "Efficient Interactive LLM Serving with Proxy Model-based
Sequence Length Prediction" (SSJF), AIOps'24, arXiv 2404.08509, which orders by the output length
that a proxy model predicts: read as an abstract only.
Needs to know: predicted outputs.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy, while_full
from schedsim.policies.preemptive import predicted_output
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class SJF(Policy):
    """Admits the shortest predicted output first; otherwise as `vllm`.

    With `kappa` the job is prompt + kappa · predicted output: kappa is what an output token costs
    in prompt tokens. Admission takes the blocks of all known tokens. Nobody is displaced; who lacks
    a block preempts the latest admitted, which waits at the place of its job again. Long jobs may
    starve.
    """

    name: ClassVar[str] = "sjf"

    kappa: float | None = None

    def __post_init__(self) -> None:
        if self.kappa is not None and not 0.0 <= self.kappa < math.inf:
            raise ConfigError(
                f"policy {self.name!r}: kappa={self.kappa} must be finite and not negative"
            )

    def key(self, request: Request) -> float:
        """The length of the job."""
        if self.kappa is None:
            return predicted_output(request)
        return request.prompt_tokens + self.kappa * predicted_output(request)

    def reservation(self, request: Request, tokens: int) -> int:
        """All known tokens."""
        return request.num_known_tokens

    def steady(self, step: Step) -> int:
        """While there is no room for anybody."""
        return while_full(step)
