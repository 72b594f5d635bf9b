"""Predicted output lengths, and that they are the only way to learn about a true one."""

import numpy as np
import pytest

from schedsim.errors import ConfigError
from schedsim.policies import Policy
from schedsim.predictors import make_predictor
from schedsim.request import Request
from schedsim.scheduler import Step
from tests.core.harness import Jobs, simulate


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def predict(text: str, outputs: list[int], column: float | None = None) -> list[float | None]:
    predictor = make_predictor(text, rng())
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


@pytest.mark.parametrize(
    ("text", "problem"),
    [
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
