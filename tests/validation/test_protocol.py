"""The protocol's files, the loads of its cells, and what is refused before anything runs."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from schedsim.errors import ConfigError, ResultError, SchedsimError
from schedsim.experiments.protocol.index import INDEX, CapacityEntry, Index, load_index
from schedsim.experiments.protocol.loads import at_once, at_rate, load_source
from schedsim.experiments.protocol.measuring import saturating_requests
from schedsim.experiments.protocol.plan import PlannedCell, Protocol, Source, read_protocol
from schedsim.experiments.setup import prepare_trace
from tests.validation.runs import LINEAR, settings, small_trace

FOLDER = Path(__file__).resolve().parents[2] / "validation"
TEST, DEVELOPMENT = (read_protocol(FOLDER / f"{name}.toml") for name in ("cells", "development"))

WHOLE = """\
purpose = "test"
seconds = 10
capacity_seconds = 5

[traces.lengths]
preset = "sharegpt"

[[cells]]
name = "one"
trace = "lengths"
policy = "vllm"
load = 0.5
kind = "light"
"""


def test_the_design_is_what_the_protocol_says() -> None:
    cells = [cell for cell in TEST.cells if cell.kind != "choice"]
    assert len(cells) == 12
    assert sum(TEST.repeats_of(cell) == 5 for cell in cells) == 3
    assert {TEST.repeats_of(cell) for cell in TEST.cells} == {2, 5}
    kinds = ("light", "near", "pressure")
    assert {kind: sum(cell.kind == kind for cell in cells) for kind in kinds} == dict.fromkeys(
        kinds, 4
    )
    by_trace = {(cell.trace.partition("-")[0], cell.kind) for cell in cells}
    assert len(by_trace) == 12
    policies = [cell.policy.partition(",")[0] for cell in cells]
    assert set(policies) == {"vllm", "sarathi", "static", "srtf", "vtc"}
    assert min(map(policies.count, policies)) >= 2
    pairs = {(cell.trace, cell.policy) for cell in cells}
    assert len(pairs) == 12
    assert all((cell.blocks is not None) == (cell.kind == "pressure") for cell in cells)
    assert 45 <= TEST.seconds <= 60


def test_the_page_has_the_cells_of_the_file() -> None:
    def told(cell: PlannedCell) -> str:
        text = f"`{cell.policy}` {cell.load:g}"
        text += "" if cell.blocks is None else f", {cell.blocks:,} blocks"
        return text + ("" if cell.repeats is None else f", {cell.repeats} repeats")

    page = (FOLDER / "PROTOCOL.md").read_text()
    for trace in ("conversation", "code", "sharegpt", "mooncake"):
        cells = [
            next(c for c in TEST.cells if c.kind == kind and c.trace.startswith(trace))
            for kind in ("light", "near", "pressure")
        ]
        assert f" | {' | '.join(map(told, cells))} |\n" in page
    assert f"{TEST.draws} simulations" in page.replace("ten simulations", "10 simulations")


def test_development_and_test_share_no_request() -> None:
    assert (TEST.purpose, DEVELOPMENT.purpose) == ("test", "development")
    for source in TEST.traces.values():
        for other in DEVELOPMENT.traces.values():
            if source.file is not None and source.file == other.file:
                assert source.window is not None
                assert other.window is not None
                assert other.window[1] <= source.window[0]
            if source.preset is not None and source.preset == other.preset:
                assert source.seed != other.seed


@pytest.mark.parametrize("protocol", [TEST, DEVELOPMENT], ids=lambda protocol: protocol.purpose)
def test_the_traces_are_long_enough(protocol: Protocol, shared_traces: Path) -> None:
    for source in protocol.traces.values():
        trace = load_source(source, shared_traces)
        assert len(trace) > 2000
        if source.clip is not None:
            assert (trace.prompt_tokens + trace.output_tokens).max() <= source.clip


def test_a_cell_has_its_rate_and_the_pattern_of_its_trace() -> None:
    trace = small_trace(200, rate=7.0)
    served = prepare_trace(trace, at_rate(trace, settings(), rate=40.0, seconds=3.0))
    assert len(served) == 120
    assert np.allclose(served.arrival * trace.arrival[120] / 3.0, trace.arrival[:120])
    with pytest.raises(ConfigError, match="take a shorter time or a longer trace"):
        at_rate(trace, settings(), 40.0, 5.0)


def test_requests_of_a_capacity_are_there_from_the_beginning() -> None:
    trace = small_trace(200, rate=7.0)
    burst = prepare_trace(trace, at_once(trace, settings(), 120))
    assert (burst.arrival == 0.0).all()
    assert (burst.prompt_tokens == trace.prompt_tokens[:120]).all()
    assert len(prepare_trace(trace, at_once(trace, settings(), 200))) == 200
    with pytest.raises(ConfigError, match="has 200 requests; 201 are asked for"):
        at_once(trace, settings(), 201)


def test_requests_that_keep_an_engine_busy_are_found() -> None:
    trace = small_trace(2000)
    few, many = (
        saturating_requests(trace, settings(max_seqs=seats), LINEAR, 2.0) for seats in (2, 8)
    )
    assert 16 <= few < many
    with pytest.raises(ConfigError, match="take a shorter time or a longer trace"):
        saturating_requests(trace, settings(max_seqs=2), LINEAR, 1e9)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({'policy = "vllm"': 'policy = "vlm"'}, "unknown policy 'vlm'"),
        ({'trace = "lengths"': 'trace = "length"'}, "unknown trace 'length'"),
        ({"load = 0.5": "load = 0"}, "load: Input should be greater than 0"),
        ({"load = 0.5": 'load = 0.5\ncapacity_of = "two"'}, "unknown cell 'two'"),
        ({"load = 0.5": "load = 0.5\nspeed = 2"}, "speed: Extra inputs are not permitted"),
        ({'preset = "sharegpt"': ""}, "traces.lengths: give either a file or a preset"),
        ({"seconds = 10": "seconds = 10\nengine = {rate_scale = 2}"}, "rate_scale is not for all"),
        ({"seconds = 10": "seconds = 10\nengine = {blocks = 0}"}, "blocks=0 must be at least 1"),
        ({'purpose = "test"': "purpose ="}, "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_message(change: dict[str, str], why: str, tmp_path: Path) -> None:
    text = WHOLE
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "cells.toml"
    path.write_text(text)
    with pytest.raises(SchedsimError, match=r"cells\.toml") as caught:
        read_protocol(path)
    assert why in str(caught.value)


def test_no_file_and_no_trace_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_protocol(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="name the folder of the traces"):
        load_source(Source(file="none.csv"), tmp_path)


def test_an_index_is_read_back(tmp_path: Path) -> None:
    assert load_index(tmp_path) == Index()
    entry = CapacityEntry(requests=80, requests_per_s=[3.0, 5.0], runs=["a", "b"])
    index = Index(device="cpu", capacities={"x": entry})
    index.write(tmp_path)
    assert load_index(tmp_path) == index
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(ResultError, match="put back a copy of it"):
        load_index(tmp_path)


def script() -> Any:
    """validation/run.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("run_protocol", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


def test_the_script_tells_mistakes_in_one_line(tmp_path: Path) -> None:
    app = script()
    evaluate = ["evaluate", "--state", str(tmp_path), "--step-time", LINEAR]
    for arguments, why in (
        ([*evaluate, "--out", str(tmp_path / "none")], "is no folder; create it first"),
        ([*evaluate, "--out", str(tmp_path)], "holds no run of this protocol; measure it first"),
        (["measure", "--state", str(tmp_path), "--cells", "none.toml"], "no such file"),
    ):
        ended = CliRunner().invoke(app, arguments)
        assert ended.exit_code == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: ")
        assert why in line
