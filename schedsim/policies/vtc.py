"""`vtc`: the Virtual Token Counter, fair shares of service among tenants.

Sources: Sheng et al., "Fairness in Serving Large Language Models", OSDI'24, algorithm 2 and its
weighted and predicting variants; read in its artifact, Ying1123/VTC-artifact at 14c19b7 and
192c2e2, `slora/server/router/vtc_req_queue.py` and `vtc_pred_len_req_queue.py`. The lift to the
counter of the last tenant that left, where nobody else is queued, is from notes of the paper; the
artifact leaves it out.
Needs to know: the tenant of each request; with `charge` predicted, a predicted output.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy, while_nobody_joins
from schedsim.policies.reserving import can_reserve, tokens_to_limit
from schedsim.policies.tenants import TenantLines, count_tenants
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class VTC(Policy):
    """Admits the oldest request of the tenant that was served least; the first failure stops.

    Service is `input_price` a prompt token, charged at a request's first admission, and
    `output_price` an output token, charged when it comes, both divided by the tenant's weight.
    `weights` is TENANT:WEIGHT/TENANT:WEIGHT/…; who is not named has weight 1. With `lift` a tenant
    that comes back to an empty line of its own has its counter raised to the least of those who
    wait, so that nobody saves up idle time (false: the artifact's least-counter-first). With
    `charge` predicted the predicted output is charged at admission and what it was wrong by is
    corrected, tokens beyond it as they come, tokens that never came at the end. `reserve` output
    takes room for the whole output limit at admission, so that nobody is preempted, as the paper's
    bound wants; known takes it for the known tokens, as vLLM does, and preempts the latest
    admitted. Work that a preemption repeats is not charged.

    The counters are whole numbers: weights only scale them.
    """

    name: ClassVar[str] = "vtc"

    input_price: int = 1
    output_price: int = 2
    weights: str = ""
    lift: bool = True
    charge: Literal["served", "predicted"] = "served"
    reserve: Literal["known", "output"] = "known"

    counters: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _scale: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _common: int = field(default=1, init=False, repr=False)
    _lines: TenantLines = field(default_factory=TenantLines, init=False, repr=False)
    _precharged: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for parameter in ("input_price", "output_price"):
            if getattr(self, parameter) < 0:
                price = getattr(self, parameter)
                raise ConfigError(f"policy {self.name!r}: {parameter}={price} is below 0")
        weights = parse_weights(self.name, self.weights)
        self._common = math.lcm(*(weight.numerator for weight in weights.values()))
        for tenant, weight in weights.items():
            self._scale[tenant] = self._common * weight.denominator // weight.numerator

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse what could not reserve its output limit even alone."""
        return self.reserve == "known" or can_reserve(request, tokens_to_limit(request), step)

    def group(self, request: Request) -> Hashable:
        """The tenant."""
        return request.tenant

    def group_key(self, group: int) -> int:
        """What the tenant was served."""
        return self.counters[group]

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """Whether all that is reserved has blocks."""
        room = tokens_to_limit(request) if self.reserve == "output" else request.num_known_tokens
        need = step.blocks_to_admit(request, room)
        return Gate.ADMIT if need <= step.free_blocks else Gate.STOP

    def reservation(self, request: Request, tokens: int) -> int:
        """As `reserve` says; known tokens are tested, not taken."""
        return tokens_to_limit(request) if self.reserve == "output" else tokens

    def steady(self, step: Step) -> int:
        """While nobody can be admitted, whoever's turn it is."""
        return while_nobody_joins(step)

    def on_arrival(self, request: Request, step: Step) -> None:
        """Count it; who had nobody in line starts level with those who wait."""
        tenant = request.tenant
        counter = self.counters.setdefault(tenant, 0)
        self._scale.setdefault(tenant, self._common)
        lines = self._lines
        if self.lift and not lines.waiting[tenant]:
            others = [self.counters[other] for other, number in lines.waiting.items() if number]
            if not others and lines.last_to_leave is not None:
                others = [self.counters[lines.last_to_leave]]
            self.counters[tenant] = max(counter, min(others, default=0))
        lines.arrive(request)

    def on_admit(self, request: Request, step: Step) -> None:
        """Charge the prompt, once."""
        if not self._lines.admit(request):
            return
        price = self.input_price * request.prompt_tokens
        if self.charge == "predicted" and request.predicted_output is not None:
            self._precharged[request.id] = expected = round(request.predicted_output)
            price += self.output_price * expected
        self.counters[request.tenant] += price * self._scale[request.tenant]

    def on_preempt(self, request: Request, step: Step) -> None:
        """It stands in line again."""
        self._lines.preempt(request)

    def on_output(self, requests: Sequence[Request], tokens: int, step: Step) -> None:
        """Charge output tokens, as far as they were not foreseen."""
        for tenant, number in count_tenants(requests).items():
            self.counters[tenant] += number * tokens * self.output_price * self._scale[tenant]
        if not self._precharged:
            return
        for request in requests:
            late = request.num_generated_tokens - self._precharged.get(request.id, 0)
            if late < tokens:
                tenant, foreseen = request.tenant, tokens - max(late, 0)
                self.counters[tenant] -= foreseen * self.output_price * self._scale[tenant]

    def on_finish(self, request: Request, step: Step) -> None:
        """Give back what was charged for tokens that never came."""
        self._lines.finish(request)
        spare = self._precharged.pop(request.id, 0) - request.num_generated_tokens
        if spare > 0:
            tenant = request.tenant
            self.counters[tenant] -= spare * self.output_price * self._scale[tenant]

    def check(self, waiting: Iterable[Request]) -> None:
        """Assert the lines of the tenants, of which `waiting` is the whole; O(n)."""
        self._lines.check(waiting)
        assert min(self.counters.values(), default=0) >= 0, "a tenant was served less than nothing"


def parse_weights(policy: str, text: str) -> dict[int, Fraction]:
    """The weights of `TENANT:WEIGHT/TENANT:WEIGHT/…`.

    Raises:
        ConfigError: it does not read like that, a weight is not above 0, a tenant stands twice.
    """
    weights: dict[int, Fraction] = {}
    for entry in text.split("/") if text else ():
        name, _, weight = entry.partition(":")
        try:
            tenant, value = int(name), Fraction(weight)
        except (ValueError, ZeroDivisionError):
            tenant, value = 0, Fraction(0)
        if value <= 0:
            raise ConfigError(
                f"policy {policy!r}: weights={text!r}: {entry!r} is no TENANT:WEIGHT with a whole "
                "number and a weight above 0, such as 0:2/1:0.5"
            )
        if tenant in weights:
            raise ConfigError(f"policy {policy!r}: weights={text!r} name tenant {tenant} twice")
        weights[tenant] = value
    return weights
