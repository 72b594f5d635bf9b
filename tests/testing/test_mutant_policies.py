"""Bugs seeded into policies: `check_policy` finds each and names the rule that it breaks."""

from collections.abc import Callable

import pytest

from schedsim.backend import EngineLoop
from schedsim.policies import VLLM, Policy
from schedsim.scheduler import Batch
from schedsim.testing import (
    NON_PREEMPTIVE,
    WORK_CONSERVING,
    Beyond,
    Claim,
    Fair,
    PolicyViolation,
    StarvationFree,
    check_policy,
    traces,
)
from tests.testing import mutant_policies as mutants

MUTANTS = [
    (mutants.OverBudget, "budget"),
    (mutants.OverSeats, "seats"),
    (mutants.NeverAdmitsATenant, "deadlock"),
    (mutants.NeverGoesOn, "deadlock"),
    (mutants.LosesThePreempted, "requests"),
    (mutants.FinishesEarly, "requests"),
    (mutants.ShortestTrueOutputFirst, "true length"),
    (mutants.WritesTheTrueLength, "true length"),
    (mutants.LyingSteady, "steady"),
    (mutants.AdmitsAlthoughSteady, "steady"),
    (mutants.JoinsARunningBatch, "steady"),
    (mutants.OrdersByParityOfId, "renaming"),
    (mutants.RemembersOtherRuns, "determinism"),
    (mutants.PreemptsForEver, "livelock"),
    (mutants.SkipsRecompute, "tokens|books"),
    (mutants.ChangesTheBlockTable, "tokens"),
]


def named(value: object) -> str:
    return value.__name__ if isinstance(value, type) else ""


@pytest.mark.parametrize(("mutant", "rule"), MUTANTS, ids=named)
def test_a_bug_in_a_policy_is_caught(mutant: Callable[[], Policy], rule: str) -> None:
    with pytest.raises(PolicyViolation) as caught:
        check_policy(mutant, examples=400, max_shrinks=20)
    assert caught.value.rule in rule.split("|"), caught.value.problem


def test_a_late_rejection_is_caught() -> None:
    with pytest.raises(PolicyViolation, match="was taken and then rejected"):
        check_policy(mutants.RejectsThePreempted, decision_lags=(0,), examples=400, max_shrinks=20)


@pytest.mark.parametrize("lag", [0, 1])
def test_a_late_rejection_is_right_where_it_is_allowed(lag: int) -> None:
    check_policy(
        mutants.RejectsThePreempted,
        beyond=[Beyond.LATE_REJECTIONS],
        decision_lags=(lag,),
        examples=400 if lag else None,
        max_shrinks=0,
    )


def test_a_request_that_runs_before_it_arrives_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs leave a policy no way to it, so the engine has the bug."""
    look = EngineLoop.look

    def look_ahead(loop: EngineLoop, now: float) -> Batch | None:
        loop._take_arrivals(now + 0.05)
        return look(loop, now)

    monkeypatch.setattr(EngineLoop, "look", look_ahead)
    with pytest.raises(PolicyViolation, match=r"arrival: request .* runs before it arrives"):
        check_policy("vllm", max_shrinks=20)


TENANTS = traces(max_requests=12, tenants=2, max_prompt=10, max_output=10)

CLAIMS: list[tuple[Callable[[], Policy] | str, Claim]] = [
    ("vllm", WORK_CONSERVING),
    ("vllm", StarvationFree(0)),
    ("static", NON_PREEMPTIVE),
    (mutants.FairByTenant, Fair(120)),
]

BROKEN_CLAIMS: list[tuple[Callable[[], Policy] | str, Claim]] = [
    ("static", WORK_CONSERVING),
    ("vllm", NON_PREEMPTIVE),
    (mutants.LatestFirst, StarvationFree(1)),
    ("vllm", Fair(12)),
]


@pytest.mark.parametrize(("policy", "claim"), CLAIMS)
def test_a_claim_that_is_true_holds(policy: Callable[[], Policy] | str, claim: Claim) -> None:
    check_policy(policy, claims=[claim], trace_strategy=TENANTS)


@pytest.mark.parametrize(("policy", "claim"), BROKEN_CLAIMS)
def test_a_claim_that_is_false_is_caught(policy: Callable[[], Policy] | str, claim: Claim) -> None:
    with pytest.raises(PolicyViolation) as caught:
        check_policy(policy, claims=[claim], trace_strategy=TENANTS, examples=400, max_shrinks=20)
    assert caught.value.rule == f"claim {claim!r}"


@pytest.mark.parametrize(
    "policy", [mutants.SwapsAll, mutants.TrulySteady, mutants.FairByTenant], ids=named
)
def test_a_policy_of_ones_own_without_a_bug_passes(policy: Callable[[], Policy]) -> None:
    check_policy(policy)


def test_nothing_is_left_behind_in_a_policy_that_is_checked() -> None:
    check_policy(VLLM, examples=5)
    assert not vars(VLLM())
