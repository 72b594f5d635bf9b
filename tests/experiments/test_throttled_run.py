"""A run simulated on a throttled device, and what the same step time says of its batches."""

from pathlib import Path

import numpy as np
import pytest

from schedsim.costs.fitted import make_fitted
from schedsim.costs.fitted_file import FittedFile, Part, Parts, Term
from schedsim.costs.throttle import Throttle
from schedsim.experiments.iterations import iterations_of
from schedsim.experiments.validation.step_errors import told_of
from schedsim.results.stored_run import load_run
from tests.cli.commands import schedsim

THROTTLE = Throttle(window_s=0.05, slowdown=2e-5, context=0.05)
HOST_S = 2e-4


def line(slope: float) -> Term:
    return Term(knots=[0.0], slopes=[slope])


FILE = FittedFile(
    parts=Parts(
        host=Part(base=HOST_S),
        device=Part(base=2e-3, terms={"tokens": line(2e-5), "decode_context": line(1e-8)}),
        gap=Part(base=1e-5),
    ),
    throttle=THROTTLE,
    ranges={},
    steps=0,
    provenance={},
    residuals={},
    warnings=[],
)


@pytest.mark.parametrize(("policy", "lag"), [("vllm", 0), ("vllm", 1), ("static,batch_size=8", 0)])
def test_a_run_is_told_again_as_it_was_simulated(policy: str, lag: int, tmp_path: Path) -> None:
    """Up to what the rate fades during a host time: the simulator asks a batch's time when the
    device is free, or decides, and the batch begins up to a host time later."""
    (tmp_path / "fitted.json").write_text(FILE.model_dump_json())
    ran = schedsim(
        *(
            "run",
            "--policy",
            policy,
            "--limit",
            80,
            "--blocks",
            4000,
            "--token-scale",
            0.3,
            "--decision-lag",
            lag,
        ),
        *("--step-time", f"fitted:{tmp_path / 'fitted.json'}", "--out", tmp_path / "run"),
    )
    assert ran.exit_code == 0, ran.stderr
    iterations = iterations_of(load_run(tmp_path / "run"))
    cost = make_fitted(FILE, "file")
    told = told_of(cost, iterations)
    before, after = iterations.token_rates(THROTTLE.window_s, THROTTLE.context)
    most = THROTTLE.slowdown * max(before.max(), after.max()) * HOST_S / THROTTLE.window_s
    assert most < 0.01, "or this says nothing"
    np.testing.assert_allclose(told.device, iterations.device, rtol=most)
    at_rest = [cost.parts_after(shape, 0.0).device for shape in iterations.shapes()]
    remembered = iterations.device > (1 + 5 * most) * np.array(at_rest)
    assert remembered.sum() > 20, "or no batch felt those before it"
