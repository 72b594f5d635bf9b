"""`srtf`: shortest remaining output first, with TRAIL's limit on preemption.

Sources: SRPT; Shahout et al., "Don't Stop Me Now: Embedding Based Scheduling for LLMs" (TRAIL),
ICLR'25, arXiv 2410.01035: preemption early in a request, when little memory is lost, and none once
it has emitted the share c of its first prediction (c = 0.8 there). The idea was checked in the
abstract; c, and that the authors' SGLang port ships 0, are from notes. TRAIL predicts anew at every
token; here the prediction is made once and shrinks by what was emitted.
Needs to know: predicted outputs.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.preemptive import Preemptive, predicted_output, while_ranked_last
from schedsim.request import Request, Status
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class SRTF(Preemptive):
    """Ranks by predicted output less what was emitted; the longest remainder goes first.

    Once a request has run and emitted at least `limit` · prediction, it ranks before all others, so
    nobody displaces it and memory takes it last: 1 is preemptive up to the prediction, 0 displaces
    nobody. So ranks who outlives its prediction.
    """

    name: ClassVar[str] = "srtf"

    limit: float = 0.8

    _most: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.limit <= 1.0:
            raise ConfigError(f"policy {self.name!r}: limit={self.limit} is not in [0, 1]")

    def rank(self, request: Request) -> float:
        """The predicted remainder in tokens, 0 beyond the limit; it never grows."""
        predicted, generated = predicted_output(request), request.num_generated_tokens
        if request.status is not Status.WAITING and generated >= self.limit * predicted:
            return 0.0
        return max(predicted - generated, 0.0)

    def victim(self, needy: Request, step: Step) -> Request | None:
        """Who has the longest remainder."""
        self._rank_anew()
        return self._ranking.last()

    def displace(self, request: Request, step: Step) -> Request | None:
        """Who has the longest remainder, if it is longer than the one of `request`."""
        # Running remainders only shrink: the longest of the last look bounds them until somebody
        # is admitted. O(1) where it forbids all displacement, else O(n log n).
        if self.rank(request) >= self._most:
            return None
        self._rank_anew()
        return Preemptive.displace(self, request, step)

    def steady(self, step: Step) -> int:
        """While ranks allow nobody to make room."""
        return while_ranked_last(step)

    def on_admit(self, request: Request, step: Step) -> None:
        """It may have the longest remainder."""
        Preemptive.on_admit(self, request, step)
        self._most = max(self._most, self.rank(request))

    def _rank_anew(self) -> None:
        """Bring all ranks up to date."""
        self._ranking.renew(self.rank)
        last = self._ranking.last()
        self._most = 0.0 if last is None else self.rank(last)
