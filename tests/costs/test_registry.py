"""Step-time models, models and GPUs by name."""

import pytest

from schedsim.costs import (
    STEP_COSTS,
    LinearCost,
    RooflineAssumptions,
    RooflineCost,
    list_gpus,
    list_models,
    load_gpu,
    load_model,
    make_step_cost,
)
from schedsim.errors import ConfigError

REQUIRED_GPUS = {"h100", "h200", "a100-40gb", "a100-80gb", "l40s", "rtx4090"}


def test_roofline_takes_its_parameters_from_the_spec() -> None:
    model, gpu = load_model("llama-3-8b"), load_gpu("h100")
    plain = make_step_cost("roofline", model, gpu, 2)
    assert plain == RooflineCost(model, gpu, 2)
    for text in ("roofline,compute_efficiency=0.6", "roofline:compute_efficiency=0.6"):
        slower = make_step_cost(text, model, gpu, 2)
        assert slower == RooflineCost(model, gpu, 2, RooflineAssumptions(compute_efficiency=0.6))


def test_linear_needs_neither_model_nor_gpu() -> None:
    assert isinstance(make_step_cost("linear:vidur-closed-form"), LinearCost)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rooflin", "Did you mean 'roofline'"),
        ("", "Known: fitted, linear, recorded, roofline, tables"),
        ("linear", "linear:FILE"),
        ("linear:", "linear:FILE"),
        ("roofline,compute=0.6", "compute_efficiency"),
        ("roofline,overhead_ms=fast", "overhead_ms='fast'"),
    ],
)
def test_a_wrong_spec_says_what_there_is(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_step_cost(text, load_model("llama-3-8b"), load_gpu("h100"))
    assert said in str(caught.value)


def test_roofline_says_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match="--model"):
        make_step_cost("roofline", None, load_gpu("h100"))
    with pytest.raises(ConfigError, match="--gpu"):
        make_step_cost("roofline", load_model("llama-3-8b"))


def test_every_listed_name_loads_and_has_a_line() -> None:
    assert set(STEP_COSTS) == {"fitted", "linear", "roofline", "tables"}
    assert {name for name, _ in list_gpus()} >= REQUIRED_GPUS
    for name, line in list_gpus():
        assert load_gpu(name).name == name
        assert line
        assert "\n" not in line
    for name, line in list_models():
        assert load_model(name).name == name
        assert line
        assert "\n" not in line


def test_an_unknown_gpu_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'a100-80gb'.*h200"):
        load_gpu("a100-80g")
