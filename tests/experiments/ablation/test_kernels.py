"""The step times of the kernels are what the pages of timings say, number by number."""

import re
from pathlib import Path

import pytest

from schedsim.costs import RooflineCost, load_gpu, load_model, make_step_cost
from schedsim.costs.roofline import RooflineAssumptions
from schedsim.experiments.ablation.kernels import CONTIGUOUS, LIBRARY, PAGED
from tests.costs.shapes import shape_of

DOCS = Path(__file__).resolve().parents[3] / "docs"
KERNELS = (DOCS / "kernel-timings.md").read_text(encoding="utf-8")
ENGINE = (DOCS / "gpu-timings.md").read_text(encoding="utf-8")
SERVING = ("32×2048", "128×1024", "256×512", "256 ragged")
MODEL, GPU = load_model("llama-3-8b"), load_gpu("h100")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the page of kernels, without its head."""
    text = KERNELS[KERNELS.index(f"### {heading}") :].split("\n###")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def cost(spec: str) -> RooflineCost:
    made = make_step_cost(spec, MODEL, GPU)
    assert isinstance(made, RooflineCost)
    return made


def assumed(spec: str) -> RooflineAssumptions:
    return cost(spec).assumptions


def look_up(batches: tuple[str, ...], table: str) -> float:
    """Mean cost of a shuffled table of blocks of 16."""
    found = [
        float(shuffled.removesuffix(" %")) / 100
        for batch, block, _, _, shuffled in rows(f"What the look-up costs: {table}, the same code")
        if batch in batches and block == "16"
    ]
    assert len(found) == len(batches)
    return sum(found) / len(found)


def test_keys_and_values_are_read_at_the_rate_of_serving_batches() -> None:
    rates = [float(r[3]) for r in rows("Decode, block size 16") if r[0] == "32" and r[1] in SERVING]
    paged = sum(rates) / len(rates)
    assert len(rates) == len(SERVING)
    assert assumed(PAGED).kv_efficiency == pytest.approx(paged / 3350, abs=5e-4)
    contiguous = paged * (1 + look_up(SERVING, "decode"))
    assert assumed(CONTIGUOUS).kv_efficiency == pytest.approx(contiguous / 3350, abs=5e-4)


def test_prefills_compute_at_the_rate_of_eight_prompts() -> None:
    (rate,) = (float(r[3]) for r in rows("Prefill, causal") if r[:2] == ["16", "8×2048"])
    assert assumed(PAGED).attention_efficiency == pytest.approx(rate / 989.4, abs=5e-4)
    contiguous = rate * (1 + look_up(("8×2048",), "prefill"))
    assert assumed(CONTIGUOUS).attention_efficiency == pytest.approx(contiguous / 989.4, abs=5e-4)
    (library,) = (float(r[1]) for r in rows("Against torch's best") if r[0] == "8×2048")
    operations = 4 * 32 * 128 * 8 * 2048 * 1024
    expected = operations / (library * 1e-6) / 989.4e12
    assert assumed(LIBRARY).attention_efficiency == pytest.approx(expected, abs=2e-3)


def test_blocks_move_at_the_rate_of_copy_blocks() -> None:
    (rate,) = re.findall(r"\| copy_blocks on the device \| [\d.]+ \| ([\d.]+) \|", KERNELS)
    assert assumed(PAGED).copy_gb_per_s == float(rate)


def test_products_are_those_of_a_long_prefill() -> None:
    tokens, milliseconds = re.findall(
        r"batch of (\d+) tokens of prefill.*?the GPU needs \d+ ms for the first shape and (\d+)",
        ENGINE,
        re.DOTALL,
    )[0]
    operations = 2 * MODEL.layers * MODEL.layer_parameters * int(tokens)
    rate = operations / (1e-3 * int(milliseconds))
    assert assumed(PAGED).compute_efficiency == pytest.approx(rate / 989.4e12, abs=5e-4)


def test_whole_decode_iterations_take_what_was_measured() -> None:
    """Within 2.5 % for batches, and paging costs what it did within half a per cent."""
    table = {r[0]: [float(cell.rstrip(" %")) for cell in r[1:]] for r in rows("A whole decode")}
    host = assumed(PAGED).overhead_ms
    for batch in ("32×2048", "256×512"):
        requests, context = map(int, batch.split("×"))
        shape = shape_of([], [context] * requests)
        paged, contiguous = (1e3 * cost(spec).seconds(shape) - host for spec in (PAGED, CONTIGUOUS))
        measured, apart, costs, share = table[batch]
        assert paged == pytest.approx(measured, rel=0.025)
        assert contiguous == pytest.approx(apart, rel=0.025)
        assert 100 * (paged / contiguous - 1) == pytest.approx(costs, abs=0.5)
        attention = paged - 1e3 * cost(PAGED).seconds(shape_of([], [0] * requests)) + host
        assert 100 * attention / paged == pytest.approx(share, abs=2)
    alone, _, _, share = table["1×32768"]
    rest = 1e3 * cost(PAGED).seconds(shape_of([], [0])) - host
    assert rest == pytest.approx(alone * (1 - share / 100), rel=0.01)


def test_the_kernels_differ_in_attention_alone() -> None:
    for other in (CONTIGUOUS, LIBRARY):
        same = {"kv_efficiency": 0.5, "attention_efficiency": 0.5}
        one, two = (cost(spec).describe() | same for spec in (PAGED, other))
        assert one == two


def test_the_host_takes_what_its_path_took() -> None:
    paths = [float(path) for path in re.findall(r"\| Llama-3-8B \| \d+ \|.*\| (\d+) \|\n", ENGINE)]
    assert len(paths) == 3
    assert min(paths) <= 1e3 * assumed(PAGED).overhead_ms <= max(paths)
