"""VTC: who is admitted, what is charged, and when a counter is lifted; all by hand."""

from dataclasses import dataclass
from typing import Any

import pytest

from schedsim.errors import ConfigError
from schedsim.policies import VTC
from schedsim.predictors import Oracle, Predictor
from schedsim.request import Request, Status
from tests.core.harness import Jobs, Run, simulate


def serve(policy: VTC, jobs: Jobs, **engine: Any) -> Run:
    return simulate(policy, jobs, seats=engine.pop("seats", 1), **engine)


def test_the_tenant_served_least_is_next() -> None:
    # Tenant 0 pays 10 + 2·2 a request, tenant 1 pays 3 + 2·2 = 7: two of 1 for one of 0.
    jobs = Jobs([10] * 3 + [3] * 6, [2] * 9, tenants=[0] * 3 + [1] * 6)
    policy = VTC()
    assert serve(policy, jobs).admissions() == [0, 3, 4, 1, 5, 6, 2, 7, 8]
    assert policy.counters == {0: 3 * 14, 1: 6 * 7}


def test_the_prompt_is_charged_at_admission_and_output_as_it_comes() -> None:
    jobs = Jobs([8, 8, 8], [9, 1, 1], tenants=[0, 0, 1])
    run = serve(VTC(), jobs, seats=2)
    # In the first iteration 0 has 8 on its counter, so tenant 1 goes before its second request.
    assert run.iterations[0].admitted == [0, 2]
    # Then tenant 1 has none waiting; 0's line is all there is.
    assert run.iterations[1].admitted == [1]


def test_prices_and_weights_scale_what_is_charged() -> None:
    jobs = Jobs([10] * 6, [1] * 6, tenants=[0, 0, 0, 0, 1, 1])
    policy = VTC(input_price=3, output_price=5, weights="0:2/7:0.5")
    assert serve(policy, jobs).admissions() == [0, 4, 1, 2, 5, 3], "two of 0 for one of 1"
    # Whole numbers: per token of weight 2 the scale is 1, of weight 1 it is 2.
    assert policy.counters == {0: 4 * 35 * 1, 1: 2 * 35 * 2}


def test_who_comes_back_is_lifted_to_the_least_of_those_who_wait() -> None:
    # Tenant 1 comes at 30 s, when 0 was served for long: without the lift it has all the seats.
    jobs = Jobs([4] * 20, [4] * 20, [0.0] * 14 + [30.0] * 6, tenants=[0] * 14 + [1] * 6)
    lifted = serve(VTC(), jobs).admissions()
    assert lifted[:8] == list(range(8)), "until 32 s nobody else is there"
    assert lifted[8:] == [14, 8, 15, 9, 16, 10, 17, 11, 18, 12, 19, 13]
    assert serve(VTC(lift=False), jobs).admissions()[8:14] == [14, 15, 16, 17, 18, 19]


def test_who_comes_to_an_empty_line_is_lifted_to_the_last_who_left_it() -> None:
    jobs = Jobs([4, 4, 4, 4, 4], [4] * 5, [0, 0, 9, 9.5, 9.5], tenants=[0, 0, 1, 0, 1])
    policy = VTC()
    run = serve(policy, jobs)
    assert run.admissions() == [0, 1, 2, 3, 4]
    # At 9 s tenant 0 has left with 24: 1 starts from there. At 10 s, when 0 is back, 1 has left
    # with 24 + 4 + 2, which 0 is lifted to. Each of the rest costs 12.
    assert policy.counters == {0: 30 + 12, 1: 24 + 12 + 12}
    policy = VTC(lift=False)
    assert serve(policy, jobs).admissions() == [0, 1, 2, 4, 3]
    assert policy.counters == {0: 36, 1: 24}


@dataclass(frozen=True)
class Guesses(Predictor):
    """Foresees the same for everyone."""

    tokens: float

    def predict(self, request: Request, output_tokens: int) -> float | None:
        return self.tokens


@pytest.mark.parametrize("guess", [1.0, 4.4, 9.0])
def test_a_prediction_moves_the_charge_forward_and_is_put_right(guess: float) -> None:
    jobs = Jobs([4] * 4, [6] * 4, tenants=[0, 0, 1, 1])
    policy = VTC(charge="predicted")
    run = serve(policy, jobs, predictor=Guesses(guess), seats=2)
    assert policy.counters == {0: 2 * 16, 1: 2 * 16}, "in the end everyone paid what it was"
    assert run.admissions() == [0, 2, 1, 3]


def test_a_prediction_lets_the_tenant_with_short_answers_in_sooner() -> None:
    jobs = Jobs([4] * 4, [9, 9, 1, 1], tenants=[0, 0, 1, 1])

    class Oracle(Predictor):
        def predict(self, request: Request, output_tokens: int) -> float | None:
            return float(output_tokens)

    served = serve(VTC(), jobs, seats=3).iterations[0].admitted
    foreseen = serve(VTC(charge="predicted"), jobs, seats=3, predictor=Oracle())
    assert served == [0, 2, 1], "both have paid 4 for their prompts"
    assert foreseen.iterations[0].admitted == [0, 2, 3]


def test_what_a_preemption_repeats_is_not_charged_again() -> None:
    jobs = Jobs([4] * 3, [6] * 3, tenants=[0, 1, 2])
    policy = VTC()
    run = simulate(policy, jobs, blocks=3)
    assert sum(request.preemptions for request in run.requests.values()) > 0
    assert policy.counters == {0: 16, 1: 16, 2: 16}


def test_with_room_for_the_output_limit_nobody_is_preempted() -> None:
    jobs = Jobs([4] * 3, [6] * 3, tenants=[0, 1, 2])
    run = simulate(VTC(reserve="output"), jobs, blocks=3)
    assert [request.preemptions for request in run.requests.values()] == [0, 0, 0]
    assert run.iterations[0].admitted == [0], "9 tokens are 3 blocks"
    run = simulate(VTC(reserve="output"), Jobs([4], [6], limits=[30]), blocks=3)
    assert run.requests[0].status is Status.REJECTED
    assert "--max-output" in run.requests[0].reason


def test_a_limit_that_the_memory_rounds_up_beyond_the_cache_is_refused() -> None:
    jobs = Jobs([1], [1], limits=[9])
    run = simulate(VTC(reserve="output"), jobs, blocks=3, memory="buddy", predictor=Oracle())
    assert run.requests[0].status is Status.REJECTED
    assert "reserve 4 blocks, the cache has 3" in run.requests[0].reason


def test_the_first_failure_stops_even_if_another_tenants_request_would_fit() -> None:
    jobs = Jobs([4, 40, 4], [12, 1, 1], [0, 1, 1], tenants=[0, 1, 2])
    run = simulate(VTC(), jobs, blocks=11)
    assert run.admissions() == [0, 1, 2]
    assert run.requests[1].admitted == run.requests[0].finished


@pytest.mark.parametrize(
    "weights", ["2", "0:", "a:1", "0:-1", "0:0", "0:1/", "0:1/0", "0:nan", "0.5:1"]
)
def test_weights_that_are_none_are_told(weights: str) -> None:
    with pytest.raises(ConfigError, match="TENANT:WEIGHT"):
        VTC(weights=weights)
    with pytest.raises(ConfigError, match="output_price=-1 is below 0"):
        VTC(output_price=-1)


def test_a_tenant_with_two_weights_is_told() -> None:
    with pytest.raises(ConfigError, match="weights='0:2/1:1/0:3' name tenant 0 twice"):
        VTC(weights="0:2/1:1/0:3")
