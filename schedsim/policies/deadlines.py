"""When tokens are due, and prefills in the order of a rank: shared by policies with deadlines."""

from collections.abc import Callable
from typing import Any

from schedsim.errors import ConfigError
from schedsim.request import Request, Status
from schedsim.scheduler.step import Step


def first_token_due(request: Request, patience: float) -> float:
    """The time by which the first token should come; `patience` is of who has no target."""
    return request.arrival + (patience if request.ttft_slo is None else request.ttft_slo)


def next_token_due(request: Request, patience: float) -> float:
    """The time by which the next token should come: one `tpot_slo` later for every token before it.

    Who has no target for its tokens is due when its patience ends, or its first token.
    """
    due = first_token_due(request, patience)
    if not request.num_generated_tokens:
        return due
    if request.tpot_slo is None:
        return max(due, request.arrival + patience)
    return due + request.num_generated_tokens * request.tpot_slo


def run_prefills_by(
    rank: Callable[[Request], Any], step: Step, admit: Callable[[Request, Step], bool]
) -> None:
    """Spend the budget on unfinished prefills and the waiting line, taken as one line by `rank`.

    `rank` is that of the waiting line. `admit` admits its head; once that fails, or somebody was
    preempted, only running prefills go on.
    """
    planned = {chunk.request.id for chunk in step.chunks}
    unplanned = (request for request in step.prefilling if request.id not in planned)
    prefills = iter(sorted(unplanned, key=lambda request: (rank(request), request.id)))
    prefill = next(prefills, None)
    head = step.first_waiting
    while step.tokens_left > 0:
        if step.preempted:
            head = None
        if prefill is not None and (
            head is None or (rank(prefill), prefill.id) < (rank(head), head.id)
        ):
            if prefill.status is Status.RUNNING:  # and no victim of one before it
                step.run(prefill, min(prefill.num_tokens_left, step.tokens_left))
            prefill = next(prefills, None)
        elif head is None:
            return
        else:
            head = step.first_waiting if admit(head, step) else None


def check_patience(policy: str, patience: float) -> None:
    """Raise ConfigError unless `patience` is a time to wait."""
    if not 0.0 < patience < float("inf"):
        raise ConfigError(
            f"policy {policy!r}: patience={patience} must be finite and above 0: seconds after "
            "which a request without a target is due"
        )
