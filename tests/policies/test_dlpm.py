"""DLPM: prefixes together as long as credit lasts, quanta, charges; all by hand."""

from typing import Any

import pytest

from schedsim.errors import ConfigError
from schedsim.policies import DLPM, VTC
from tests.core.harness import Jobs, Run, simulate

CACHED = "paged,prefix_caching=true"

# Two tenants, two prefixes of 16 tokens; the arrivals alternate between the prefixes.
MIXED = Jobs(
    [20] * 8,
    [1] * 8,
    tenants=[0, 0, 0, 0, 1, 1, 1, 1],
    chains=[[number % 2] * 16 for number in range(8)],
)


def serve(policy: DLPM | VTC, jobs: Jobs = MIXED, **engine: Any) -> Run:
    """One seat and a cache that keeps one prefix and little else."""
    return simulate(policy, jobs, seats=1, memory=CACHED, **engine)


def test_with_a_large_quantum_prefixes_stay_together() -> None:
    assert serve(DLPM()).admissions() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_a_tenant_without_credit_is_passed_over_whatever_its_prefix_is() -> None:
    # A new prefix costs 20 + 2, one that is cached 4 + 2. Credits of (0, 1) before each choice,
    # quanta given: (1, 1) 0; (-21, 1) 4; (-15, 1) 6; (-9, 1) 5, prefix 1; (1, -11) 1; (1, -5) 2;
    # (1, 1) 3; (-5, 1) 7.
    assert serve(DLPM(quantum=1)).admissions() == [0, 4, 6, 5, 1, 2, 3, 7]


def test_quanta_go_to_all_without_credit_until_one_in_line_has_some() -> None:
    jobs = Jobs([10] * 4, [1] * 4, tenants=[0, 0, 1, 1])
    policy = DLPM(quantum=5)
    run = serve(policy, jobs)
    # A request costs 10 + 2. Each starts at 0, one quantum: 5, 5. Request 0: -7, 5. Request 2:
    # -7, -7. Two quanta: 3, 3. Request 1: -9, 3. Request 3: -9, -9.
    assert run.admissions() == [0, 2, 1, 3]
    assert policy.credits == {0: -9, 1: -9}


def test_only_what_the_cache_does_not_hold_is_charged() -> None:
    jobs = Jobs([20, 20], [1, 1], [0, 1], tenants=[0, 0], chains=[[0] * 16, [0] * 16])
    policy = DLPM(quantum=100)
    serve(policy, jobs)
    assert policy.credits == {0: 100 - (20 + 2) - (4 + 2)}


def test_beyond_the_match_limit_the_order_is_that_of_arrival() -> None:
    assert serve(DLPM(match_limit=3)).admissions()[:5] == [0, 1, 2, 3, 4]


def test_more_is_found_in_the_cache_than_by_vtc() -> None:
    # The cache holds one conversation; two tenants have three prefixes each, mixed up.
    count = 60
    jobs = Jobs(
        [68] * count,
        [2] * count,
        tenants=[number // 3 % 2 for number in range(count)],
        chains=[[number % 3 + 10 * (number // 3 % 2)] * 64 for number in range(count)],
    )
    cached = {
        name: sum(r.cached_tokens for r in serve(policy, jobs, blocks=20).requests.values())
        for name, policy in {
            "vtc": VTC(),
            "fair": DLPM(quantum=100),
            "local": DLPM(quantum=100_000),
        }.items()
    }
    assert cached["vtc"] < cached["fair"] < cached["local"]


def test_what_a_preemption_repeats_is_not_charged_again() -> None:
    jobs = Jobs([4] * 3, [6] * 3, tenants=[0, 1, 2])
    policy = DLPM(quantum=100)
    run = simulate(policy, jobs, blocks=3)
    assert sum(request.preemptions for request in run.requests.values()) > 0
    assert policy.credits == {0: 84, 1: 84, 2: 84}


def test_parameters_that_cannot_be_are_told() -> None:
    for parameter, value in (("quantum", 0), ("output_price", -1), ("match_limit", -1)):
        with pytest.raises(ConfigError, match=f"{parameter}={value} is below"):
            DLPM(**{parameter: value})
