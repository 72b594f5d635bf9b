"""`composed`: an order, an admission rule and a victim rule put together by name.

Sources: those of the parts, in `parts.py`; each is a rule of a shipped policy by itself.
Needs to know: what its parts do; without a prediction the output limit stands for the length.
"""

from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy, PreemptMode, while_nobody_joins
from schedsim.policies.parts import ADMISSIONS, ORDERS, VICTIMS
from schedsim.policies.reserving import can_reserve, tokens_to_limit
from schedsim.request import Request
from schedsim.scheduler.step import Step
from schedsim.specs import unknown_name

WORST = "worst"
"""The victim that the order itself names."""


class Composed(Policy):
    """Iterations as `vllm` has them; who comes first, who gets in and who goes is chosen.

    `--policy order=srtf,admit=peak,victim=longest,mode=swap` is short for
    `--policy composed,order=srtf,…`. `order` of who waits: fcfs, sjf, srtf, shortest-prompt, las,
    priority. `admit` on the blocks for the first chunk, for the whole known sequence, for prompt
    and limit (reserve), or on the peak to come. `victim` where a block is missing: the last
    admitted, the longest expected rest, the fewest output tokens, the largest holder of blocks, or
    the worst by `order`. `mode`: it is computed again, or swapped to the host. With `displace` who
    waits drives out who runs and comes later in `order`, if that makes enough room.

    No dataclass, since `mode` is a hook as well.
    """

    name: ClassVar[str] = "composed"

    def __init__(
        self,
        order: str = "fcfs",
        admit: str = "whole",
        victim: str = "last",
        mode: Literal["recompute", "swap"] = "recompute",
        displace: bool = False,
    ) -> None:
        for part, chosen, known in (
            ("order", order, ORDERS),
            ("admit", admit, ADMISSIONS),
            ("victim", victim, {**VICTIMS, WORST: None}),
        ):
            if chosen not in known:
                raise ConfigError(f"policy {self.name!r}: {unknown_name(part, chosen, known)}")
        self._admission = ADMISSIONS[admit]()
        self._refuse_contradictions(order, victim, mode, displace)
        self._rank = ORDERS[order]
        self._badness = VICTIMS.get(victim)
        self._mode = PreemptMode(mode)
        self._displaces = displace
        self._stuck: Request | None = None
        self._told = f"order={order},admit={admit},victim={victim},mode={mode},displace={displace}"

    def __repr__(self) -> str:
        return f"Composed({self._told})"

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse what could never reserve its limit, where that is asked for."""
        return not self._admission.reserves or can_reserve(request, tokens_to_limit(request), step)

    def key(self, request: Request) -> tuple[float, float]:
        """By the order, then by arrival."""
        return self._rank(request), request.arrival

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """As the admission rule says."""
        return Gate.ADMIT if self._admission.fits(request, tokens, step) else Gate.STOP

    def reservation(self, request: Request, tokens: int) -> int:
        """What the admission rule takes."""
        return self._admission.room(request, tokens)

    def victim(self, needy: Request, step: Step) -> Request | None:
        """As the victim rule says; of equals the latest admitted."""
        badness = self._badness
        if badness is None:
            return max(step.running, key=self._place)
        return max(step.running, key=lambda request: (*badness(request, step), request.order))

    def displace(self, request: Request, step: Step) -> Request | None:
        """The last in order of those who run, if enough of them come after `request`."""
        if not self._displaces or request is self._stuck:
            return None
        rank = self._rank(request)
        later = [r for r in step.running if self._rank(r) > rank and r not in step.admitted]
        later.sort(key=self._place, reverse=True)
        tokens = min(request.num_known_tokens, max(step.tokens_left, 1))
        if later and self._admission.fits(request, tokens, step, later):
            return later[0]
        # Until somebody comes or goes, nobody else comes after it and no more can be had.
        self._stuck = request
        return None

    def mode(self, victim: Request, step: Step) -> PreemptMode:
        """As chosen."""
        return self._mode

    def steady(self, step: Step) -> int:
        """While nobody can be admitted or displaced."""
        return 1 if self._displaces and step.num_waiting else while_nobody_joins(step)

    def on_admit(self, request: Request, step: Step) -> None:
        """One more who might be displaced."""
        self._stuck = None

    def on_preempt(self, request: Request, step: Step) -> None:
        """Memory came free."""
        self._note_release()

    def on_finish(self, request: Request, step: Step) -> None:
        """Memory came free."""
        self._note_release()

    def _note_release(self) -> None:
        self._stuck = None
        self._admission.note_release()

    def _place(self, request: Request) -> tuple[float, float, int]:
        return self._rank(request), request.arrival, request.id

    def _refuse_contradictions(self, order: str, victim: str, mode: str, displace: bool) -> None:
        """Raise ConfigError for parts that have no effect beside each other, or fight."""
        problem = ""
        if displace and order == "fcfs":
            problem = "order=fcfs and displace=true: who runs came before who waits"
        elif displace and order == "las":
            problem = (
                "order=las and displace=true: whoever has just got a token would have to go for "
                "the next, and back; the policy las has a quantum"
            )
        elif displace and victim != WORST:
            problem = (
                f"displace=true and victim={victim}: who displaced another might go for it at "
                f"once; write victim={WORST}"
            )
        elif self._admission.reserves and not displace:
            chosen = f"victim={victim}" if victim != "last" else f"mode={mode}"
            if victim != "last" or mode != "recompute":
                problem = f"admit=reserve and {chosen}: nobody is ever preempted"
        if problem:
            raise ConfigError(f"policy {self.name!r}: {problem}")
