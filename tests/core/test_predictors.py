"""Predicted output lengths, and that they are the only way to learn about a true one."""

import numpy as np
import pytest
from scipy import stats

import schedsim
from schedsim.errors import ConfigError
from schedsim.policies import Policy
from schedsim.predictors import make_predictor
from schedsim.request import Request
from schedsim.scheduler import Step
from tests.core.harness import Jobs, simulate


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def predict(text: str, outputs: list[int], column: float | None = None) -> list[float | None]:
    predictor = make_predictor(text, rng(), outputs)
    requests = [Request(n, 0.0, 4, 1000, predicted_output=column) for n in range(len(outputs))]
    return [predictor.predict(r, n) for r, n in zip(requests, outputs, strict=True)]


def test_none_leaves_what_the_trace_says() -> None:
    assert predict("none", [7, 8]) == [None, None]
    assert predict("none", [7, 8], column=3.5) == [3.5, 3.5]


def test_oracle_tells_the_truth() -> None:
    assert predict("oracle", [7, 8], column=3.5) == [7.0, 8.0]


def test_lognormal_noise_has_the_truth_as_its_median_and_sigma_as_its_spread() -> None:
    values = np.array(predict("lognormal,sigma=0.4", [1000] * 4000), dtype=np.float64)
    logs = np.log(values / 1000.0)
    assert abs(np.median(logs)) < 4 * 1.2533 * 0.4 / 4000**0.5
    assert np.std(logs) == pytest.approx(0.4, rel=0.05)


def test_lognormal_noise_repeats_with_the_seed_and_is_at_least_one_token() -> None:
    assert predict("lognormal", [50] * 20) == predict("lognormal,sigma=0.5", [50] * 20)
    noisy = predict("lognormal,sigma=3", [1] * 200)
    assert min(value for value in noisy if value is not None) == 1.0
    assert predict("lognormal:0", [9, 1]) == [9.0, 1.0]


@pytest.mark.parametrize("tau", [-0.6, 0.0, 0.35, 0.8])
def test_rank_noise_has_the_given_kendall_tau_and_the_law_of_the_truth(tau: float) -> None:
    outputs = np.random.default_rng(3).permutation(np.arange(1, 3001) ** 2).tolist()
    values = np.array(predict(f"rank,tau={tau}", outputs), dtype=np.float64)
    # The standard error of the sample tau of independent pairs is below 2/3 · n^-1/2.
    assert stats.kendalltau(outputs, values).statistic == pytest.approx(
        tau, abs=3 * 0.67 / 3000**0.5
    )
    assert stats.ks_2samp(outputs, values).pvalue > 0.001
    assert set(values) <= set(outputs)


def test_rank_noise_with_tau_1_is_the_oracle_ties_included() -> None:
    outputs = [5, 9, 9, 9, 1, 700, 5, 2]
    assert predict("rank,tau=1", outputs) == [float(n) for n in outputs]
    assert predict("rank,tau=-1", [1, 2, 3, 4, 5]) == [5.0, 4.0, 3.0, 2.0, 1.0]


def test_bins_say_the_middle_of_the_right_bin_or_of_any_other() -> None:
    outputs = list(range(1, 101))
    right = predict("bins,count=4", outputs)
    assert right == [12.5] * 25 + [37.5] * 25 + [62.5] * 25 + [87.5] * 25
    wrong = predict("bins,count=4,accuracy=0", outputs)
    assert not any(a == b for a, b in zip(right, wrong, strict=True))
    assert set(wrong) == {12.5, 37.5, 62.5, 87.5}
    some = predict("bins,count=4,accuracy=0.8", [50] * 2000 + [100])
    share = sum(value == 37.5 for value in some) / 2000
    assert share == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / 2000) ** 0.5)
    assert predict("bins,count=1,accuracy=0", [8, 10]) == [5.0, 5.0]
    assert predict("bins,count=10", [1, 2]) == [1.0, 1.1]


def test_history_says_the_mean_of_what_the_tenant_finished_lately() -> None:
    policy = Notes(100)
    jobs = Jobs(
        [4] * 6,
        [3, 9, 6, 2, 8, 1],
        arrivals=[0, 0, 20, 40, 60, 60],
        tenants=[1, 2, 1, 1, 1, 3],
    )
    simulate(policy, jobs, predictor=make_predictor("history,window=2", rng()))
    assert policy.seen == {0: None, 1: None, 2: 3.0, 3: 4.5, 4: 4.0, 5: 4.0}


def test_column_wants_a_value_for_every_request() -> None:
    column = np.array([3.5, np.nan])
    predictor = make_predictor("column,latency=1", rng(), [7], column[:1])
    assert predictor.latency == 1.0
    assert predictor.predict(Request(0, 0.0, 4, 10, predicted_output=3.5), 7) == 3.5
    with pytest.raises(ConfigError, match="request 1 has no predicted_output in the trace"):
        make_predictor("column", rng(), [7, 8], column)
    with pytest.raises(ConfigError, match="request 0 has no predicted_output in the trace"):
        make_predictor("column", rng(), [7, 8])


def test_a_late_prediction_delays_the_request_and_not_its_arrival() -> None:
    policy = Notes(100)
    jobs = Jobs([4] * 3, [2, 2, 2], arrivals=[0, 1, 10])
    run = simulate(policy, jobs, predictor=make_predictor("oracle,latency=2.5", rng()))
    assert [run.requests[n].arrival for n in range(3)] == [0, 1, 10]
    assert [run.requests[n].released for n in range(3)] == [2.5, 3.5, 12.5]
    assert [run.requests[n].admitted for n in range(3)] == [2.5, 3.5, 12.5]
    assert policy.seen == {0: 2.0, 1: 2.0, 2: 2.0}
    assert run.result.requests["ttft_s"].tolist() == [3.5, 3.5, 3.5]


def test_in_a_closed_loop_a_child_waits_for_its_prediction_after_its_think_time() -> None:
    jobs = Jobs([4] * 2, [2, 2], arrivals=[0, 0], parents=[-1, 0], thinks=[0, 5])
    run = simulate(Notes(100), jobs, predictor=make_predictor("oracle,latency=2", rng()))
    assert run.requests[1].arrival == 4.0 + 5.0
    assert run.requests[1].admitted == 4.0 + 5.0 + 2.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rank,tau=1.5", "tau=1.5 is not in"),
        ("bins,count=0", "count=0 is below 1"),
        ("bins,accuracy=2", "accuracy=2.0 is not in"),
        ("history,window=0", "window=0 is below 1"),
        ("oracle,latency=inf", "latency=inf must be finite"),
        ("oracel", r"unknown predictor 'oracel'. Did you mean 'oracle'\?"),
        ("oracle,sigma=1", "has no parameter 'sigma'"),
        ("lognormal,sigma=-1", "sigma=-1.0 is not in"),
        ("lognormal,sigma=nan", "sigma=nan is not in"),
        ("lognormal,sigma=much", "must be a number"),
    ],
)
def test_a_wrong_predictor_is_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_predictor(text, rng())


class Notes(Policy):
    """Writes down the predictions that it sees when it is asked to accept."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen: dict[int, float | None] = {}

    def accept(self, request: Request, step: Step) -> bool:
        self.seen[request.id] = request.predicted_output
        return request.prompt_tokens <= self.most


def test_predictions_are_there_at_arrival() -> None:
    policy = Notes(100)
    simulate(policy, Jobs([4] * 3, [3, 9, 5]), predictor=make_predictor("oracle", rng()))
    assert policy.seen == {0: 3.0, 1: 9.0, 2: 5.0}


def test_noise_does_not_depend_on_who_was_rejected_before() -> None:
    """So that policies that reject differently are compared on the same predictions."""
    jobs = Jobs([4, 40, 4, 400, 4], [30] * 5)
    seen = []
    for max_model_len in (1000, 100):
        policy = Notes(10)
        simulate(
            policy, jobs, max_model_len=max_model_len, predictor=make_predictor("lognormal", rng())
        )
        seen.append([policy.seen[number] for number in (0, 2, 4)])
    assert seen[0] == seen[1]


def test_memory_reserves_by_a_predictor_of_its_own() -> None:
    """Batches in the order of one prediction, room by the other."""
    trace = schedsim.generate("azure-conv", 60, seed=2)

    def served(**predictors: str) -> tuple[list[int], int]:
        """Outputs in the order of admission, and blocks moved by who outgrew a prediction."""
        result = schedsim.simulate(
            trace,
            "static,batch_size=8,reserve=prompt,order=predicted",
            memory="contiguous,reserve=predicted",
            arrivals="burst",
            blocks=4000,
            **predictors,
        )
        requests = result.requests.sort_values(["admitted", "request"])
        return requests["output_tokens"].tolist(), result.summary["copied_blocks"]

    exact = served(predictor="oracle")
    assert exact == served(predictor="oracle", memory_predictor="oracle")
    batches = [sorted(exact[0][start : start + 8]) for start in range(0, 60, 8)]
    assert [length for batch in batches for length in batch] == sorted(exact[0])
    assert exact[1] == 0
    sized_by_noise = served(predictor="oracle", memory_predictor="lognormal,sigma=1")
    assert sized_by_noise[0] == exact[0]
    assert sized_by_noise[1] > 0
    sorted_by_noise = served(predictor="lognormal,sigma=1", memory_predictor="oracle")
    assert sorted_by_noise[0] != exact[0]
    assert sorted_by_noise[1] == 0
