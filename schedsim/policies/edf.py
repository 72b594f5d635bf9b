"""`edf`: earliest deadline first, or least slack first.

Sources: Liu and Layland, 1973, for the rule; the deadline of a token is that of Goel et al.,
"QoServe", ASPLOS'26, section 3.2 (read), whose Sarathi-EDF baseline takes prefills by arrival and
target as this does (its artifact, microsoft/sarathi-serve at 72339db, `sequence.py`, read). What
displacement does to decodes is our own: no published engine is known to us that has it.
Needs to know: the targets of each request, or the run's; with `order` slack an estimate of the step
time.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy, PreemptMode, while_nobody_joins
from schedsim.policies.deadlines import check_patience, next_token_due, run_prefills_by
from schedsim.request import Request
from schedsim.scheduler.batch import BatchShape
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class EDF(Policy):
    """Every decode first, then prefills, running or waiting, as they are due.

    The first token is due at arrival + TTFT target, each further one a TPOT target later; who has
    no target is due `patience` seconds after its arrival. With `order` slack the prefill time that
    is left, at the speed of a full chunk, is taken off. The head of the line is admitted once all
    its known tokens have blocks. Where blocks are short, who is due last is preempted. With
    `preemptive` the head also displaces those who are due later than itself, if that makes room,
    decodes too: no more often than requests arrive and tokens come. `preemption` says what becomes
    of the preempted.
    """

    name: ClassVar[str] = "edf"

    order: Literal["deadline", "slack"] = "deadline"
    preemptive: bool = False
    preemption: Literal["recompute", "swap"] = "recompute"
    patience: float = 600.0

    _token_s: float = field(default=-1.0, init=False, repr=False)

    def __post_init__(self) -> None:
        check_patience(self.name, self.patience)
        if self.preemptive and self.order == "slack":
            raise ConfigError(
                f"policy {self.name!r}: preemptive=true with order=slack would let requests of "
                "equal slack displace each other in every iteration; leave one of them out"
            )

    def schedule(self, step: Step) -> None:
        """Displace, decode, prefill."""
        if self.preemptive:
            self._displace_later(step)
        step.run_decodes()
        run_prefills_by(self.key, step, self._admit)

    def accept(self, request: Request, step: Step) -> bool:
        """Everyone; at the first one the speed of a prefill is asked for."""
        if self.order == "slack" and self._token_s < 0:
            shape = BatchShape()
            shape.add_chunk(step.token_budget)
            self._token_s = step.estimate(shape) / step.token_budget
        return True

    def key(self, request: Request) -> float:
        """When the next token is due, or when its prefill should start."""
        due = next_token_due(request, self.patience)
        return due - request.num_tokens_left * self._token_s if self.order == "slack" else due

    def victim(self, needy: Request, step: Step) -> Request | None:
        """Who is due last."""
        return max(step.running, key=lambda request: (self.key(request), request.id))

    def mode(self, victim: Request, step: Step) -> PreemptMode:
        """As `preemption` says."""
        return PreemptMode(self.preemption)

    def steady(self, step: Step) -> int:
        """While nobody can be admitted or displaced."""
        return 1 if self.preemptive and step.num_waiting else while_nobody_joins(step)

    def _admit(self, request: Request, step: Step) -> bool:
        return self._admit_chunk(request, step.tokens_left, step)

    def _admit_chunk(self, request: Request, most: int, step: Step) -> bool:
        if step.seats <= 0:
            return False
        if step.blocks_to_admit(request, request.num_known_tokens) > step.free_blocks:
            return False
        return step.admit(request, min(request.num_tokens_left, most))

    def _displace_later(self, step: Step) -> None:
        """Let the head of the line in, over those who are due later, as long as that makes room.

        The decodes that stay run after it, so what it computes leaves them their tokens.
        """
        while (head := step.first_waiting) is not None and step.tokens_left > 0:
            if head in step.preempted:
                return
            own = (self.key(head), head.id)
            victims = self._later_than(own, head, step)
            if victims is None:
                return
            prefilling = step.prefilling
            decodes = step.num_running - len(prefilling)
            decodes -= sum(victim not in prefilling for victim in victims)
            most = step.tokens_left - decodes
            if most <= 0:
                return
            for victim in victims:
                step.preempt(victim)
            if not self._admit_chunk(head, most, step):
                return

    def _later_than(
        self, own: tuple[float, int], head: Request, step: Step
    ) -> list[Request] | None:
        """Whom to preempt for the head, latest first; None if there is room, or will be none."""
        lacks_seat = step.seats <= 0
        missing = step.blocks_to_admit(head, head.num_known_tokens) - step.free_blocks
        if not lacks_seat and missing <= 0:
            return None
        later = sorted(
            ((self.key(request), request.id, request) for request in step.running), reverse=True
        )
        victims: list[Request] = []
        for due, number, request in later:
            if (due, number) <= own:
                return None
            victims.append(request)
            missing -= step.blocks_held(request)
            if missing <= 0:
                return victims
        return None
