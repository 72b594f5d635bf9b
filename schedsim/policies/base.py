"""`Policy`: the base of every scheduling policy, and the two levels at which one is written.

Level 1 overrides hooks: small decisions with defaults that together are vLLM's v1 scheduler.
Level 0 overrides `schedule` and composes an iteration from the verbs of `step`.
"""

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from schedsim.request import Request

if TYPE_CHECKING:
    from schedsim.scheduler.step import Step


class Gate(Enum):
    """The answer to "may this waiting request be admitted now?"."""

    ADMIT = "admit"
    SKIP = "skip"
    STOP = "stop"


class PreemptMode(Enum):
    """What becomes of the keys and values of a preempted request."""

    RECOMPUTE = "recompute"
    SWAP = "swap"


class Release(Enum):
    """When a finished request gives back its seat and its blocks."""

    IMMEDIATE = "immediate"
    BATCH_END = "batch_end"


UNTIL_AN_EVENT = 1 << 40
"""An answer of `steady`: the decision stays until something arrives, finishes or lacks memory."""


class Policy:
    """Decides what runs in an iteration; acts through the verbs of `step`, never on the books.

    A policy is a dataclass whose fields are its parameters. It must be deterministic: ties break
    by request id, which is the order of arrival. It may keep state of its own; one object serves
    one run.
    """

    name: ClassVar[str] = "policy"
    """What it is called in messages and results; a class without one goes by its class name."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__

    running_order: Literal["admission", "arrival"] = "admission"
    """How the running list is ordered: what runs first, and who is last when a block is missing."""

    needs_free_block: bool = False
    """Whether a decode may run only while at least one block is free, even if it needs none."""

    admit_after_preempt: bool = False
    """Whether an iteration that preempted may also admit."""

    stops_at_own_preemption: ClassVar[bool] = False
    """Whether the rest of the running list waits once a request has preempted itself."""

    runs_to_the_end: ClassVar[bool] = False
    """Whether all it decides while somebody runs is that who decodes does, until nobody is left.

    Then what `steady` promises also holds when somebody arrives or finishes.
    """

    default_memory: ClassVar[str] = "paged"
    """The memory manager of a run whose settings name none."""

    default_decision_lag: ClassVar[int] = 0
    """How many batches are in flight when one is decided, where the settings do not say."""

    def default_token_budget(self, max_model_len: int) -> int:
        """The iteration's token budget where the user gives none."""
        return 2048

    def watermark_blocks(self, total_blocks: int) -> int:
        """Blocks that admission leaves free even in an empty engine."""
        return 0

    def schedule(self, step: "Step") -> None:
        """Compose one iteration from the verbs of `step`."""
        step.run_running()
        if self.admit_after_preempt or not step.preempted:
            step.admit_waiting()

    def accept(self, request: Request, step: "Step") -> bool:
        """Whether to take `request` at all, asked at its arrival."""
        return True

    def group(self, request: Request) -> Hashable:
        """The sub-queue that `request` waits in."""
        return None

    def group_key(self, group: Any) -> Any:
        """The rank of a sub-queue, smallest first; asked anew at every admission."""
        return 0

    def key(self, request: Request) -> Any:
        """The rank inside the sub-queue, smallest first; constant while the request waits."""
        return request.arrival

    def gate(self, request: Request, tokens: int, step: "Step") -> Gate:
        """Whether to admit the waiting `request` with a first chunk of `tokens`.

        The chunk comes after `step.cached_tokens(request)` tokens that need not be computed.
        """
        return Gate.ADMIT

    def budget(self, step: "Step") -> int:
        """The token budget of this iteration."""
        return step.token_budget

    def chunk(self, request: Request, tokens: int, step: "Step") -> int:
        """How many of the `tokens` that `request` has left to prefill run now; 0 holds it."""
        return min(tokens, step.tokens_left)

    def reservation(self, request: Request, tokens: int) -> int:
        """Room in tokens to take at admission, of which the first chunk uses `tokens`."""
        return tokens

    def victim(self, needy: Request, step: "Step") -> Request | None:
        """Whom to preempt when running `needy` lacks a block; None lets `needy` wait instead."""
        return step.last_running()

    def displace(self, request: Request, step: "Step") -> Request | None:
        """Whom to preempt so that waiting `request` gets a seat or blocks; None: nobody."""
        return None

    def mode(self, victim: Request, step: "Step") -> PreemptMode:
        """Whether `victim`, which is being preempted, is recomputed later or swapped to the host.

        A swap that the host tier has no room for is a recompute.
        """
        return PreemptMode.RECOMPUTE

    def wake_at(self, step: "Step") -> float | None:
        """When to ask again after an iteration that ran nothing; None: at the next arrival."""
        return None

    def steady(self, step: "Step") -> int:
        """For how many decode iterations, this one included, the policy decides the same.

        Asked after an iteration that only decodes was decided. k promises that the next k - 1 run
        the same requests, a token each, and that no waiting request becomes admissible, as long as
        nothing arrives, finishes or fails to get memory. 1, always right: this iteration only.
        Those iterations may then run as one: no hook is called but `on_tokens`, once for all of
        them. Where a class below the one that answers brings any method of its own, the answer does
        not count.
        """
        return 1

    def release(self, request: Request) -> Release:
        """When a finished request's seat and blocks come free."""
        return Release.IMMEDIATE

    def on_arrival(self, request: Request, step: "Step") -> None:
        """`request` was taken and now waits."""

    def on_admit(self, request: Request, step: "Step") -> None:
        """`request` was admitted."""

    def on_preempt(self, request: Request, step: "Step") -> None:
        """`request` was preempted."""

    def on_output(self, requests: Sequence[Request], tokens: int, step: "Step") -> None:
        """Each of `requests` emitted `tokens` output tokens: tells `on_tokens` of one by one.

        For policies that charge tenants and need not look at every request.
        """
        for request in requests:
            self.on_tokens(request, tokens, step)

    def on_tokens(self, request: Request, tokens: int, step: "Step") -> None:
        """`request` emitted `tokens` output tokens; must be additive in `tokens`."""

    def on_finish(self, request: Request, step: "Step") -> None:
        """`request` finished."""


def overrides(policy: Policy, hook: str) -> bool:
    """Whether `policy` replaces a hook of the base class; what it leaves alone costs nothing."""
    return getattr(type(policy), hook) is not getattr(Policy, hook) or hook in vars(policy)


def trusted_steady(policy: Policy) -> bool:
    """Whether `steady` was written for what `policy` does, and not for a base class of it."""
    own = vars(policy)
    if any(name != "steady" and callable(getattr(Policy, name, None)) for name in own):
        return False
    if "steady" in own:
        return True
    for owner in type(policy).__mro__:
        if "steady" in vars(owner):
            return owner is not Policy
        if any(_is_method(name, value) for name, value in vars(owner).items()):
            return False
    raise AssertionError("Policy has a steady")


def _is_method(name: str, value: object) -> bool:
    """Dataclasses write methods with two underscores, which decide nothing."""
    kinds = (property, classmethod, staticmethod)
    return not name.startswith("__") and (callable(value) or isinstance(value, kinds))


def while_full(step: "Step") -> int:
    """`steady` of a policy that decodes all who run and admits in order as blocks are free.

    Room only gets less while nobody leaves; but a prefix cache may come to hold more of who waits.
    """
    if step.has_prefix_cache and step.num_waiting and step.seats > 0:
        return 1
    return UNTIL_AN_EVENT


def while_nobody_joins(step: "Step") -> int:
    """`steady` of a policy that decodes all who run and looks at the line only for a free seat."""
    return 1 if step.num_waiting and step.seats > 0 else UNTIL_AN_EVENT
