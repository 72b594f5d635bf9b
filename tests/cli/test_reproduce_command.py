"""`schedsim reproduce`: scaled down, what it prints, writes and refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from schedsim.experiments.reproductions import REPRODUCTIONS
from schedsim.experiments.reproductions.base import Claim, Order, Row, Trial, number
from schedsim.experiments.reproductions.mcsf import MCSF2025
from schedsim.experiments.reproductions.running import reproduce
from schedsim.experiments.reproductions.sarathi import SarathiOsdi24
from schedsim.experiments.reproductions.vllm import VLLMSosp23
from schedsim.experiments.reproductions.vtc import VTCOsdi24
from tests.cli.commands import manifest, names, refused, schedsim


def reproduced(name: str, scale: float, *more: object) -> dict[str, Any]:
    """The figures of a scaled reproduction by name, and its runs under `runs`."""
    ended = schedsim("reproduce", name, "--scale", scale, "--json", "--quiet", *more)
    assert ended.exit_code == 0, ended.stderr
    assert ended.stderr == ""
    told = json.loads(ended.stdout)
    return {figure["name"]: figure for figure in told["figures"]} | {"runs": told["runs"]}


def test_without_a_name_all_are_listed() -> None:
    ended = schedsim("reproduce")
    assert ended.exit_code == 0
    for name in REPRODUCTIONS:
        assert name in ended.stdout


def test_a_wrong_name_scale_or_seed_is_refused(tmp_path: Path) -> None:
    assert "anyscale-2023" in refused("reproduce", "anyscale")
    assert "--scale 0" in refused("reproduce", "anyscale-2023", "--scale", 0)
    assert "--seed -1" in refused("reproduce", "anyscale-2023", "--seed", -1)
    (tmp_path / "there").touch()
    assert "not empty" in refused("reproduce", "anyscale-2023", "--out", tmp_path)


def test_the_directory_opens_in_pandas_and_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    tables = []
    for place in ("one", "two"):
        out = tmp_path / place
        ended = schedsim("reproduce", "anyscale-2023", "--scale", 0.02, "--out", out)
        assert ended.exit_code == 0, ended.stderr
        assert names(out) == {"manifest.json", "figures.parquet", "runs.parquet"}
        assert manifest(out)["complete"] is True
        assert manifest(out)["setup"]["requests"] == 1000
        tables.append(pd.read_parquet(out / "figures.parquet"))
        assert len(pd.read_parquet(out / "runs.parquet")) == 16
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert {"name", "low", "high", "value", "verdict", "why"} <= set(tables[0])


def test_a_claim_agrees_within_a_quarter_and_else_has_a_direction_or_none() -> None:
    claim = Claim("factor", 4, "paper", unit="×", neutral=1, why="a cause")
    assert claim.figure(5.0).verdict == "agrees"
    assert claim.figure(5.0).why == ""
    assert claim.figure(5.1).verdict == "same direction"
    assert claim.figure(0.9).verdict == "differs"
    assert claim.figure(0.9).why == "a cause"
    assert claim.figure(None).verdict == "not measured"
    assert Claim("range", 2, "paper", high=8).figure(1.6).verdict == "agrees"
    assert Claim("range", 2, "paper", high=8).figure(1.4).verdict == "differs"
    order = Order("order", ("a", "b"), "paper")
    assert order.figure({"a": 1.0, "b": 2.0}).verdict == "agrees"
    assert order.figure({"a": 2.0, "b": 1.0}).ours == "b < a"
    tie = order.figure({"a": 1.0, "b": 1.0})
    assert (tie.ours, tie.verdict) == ("a = b", "differs")


def test_anyscale_puts_the_systems_in_the_published_order() -> None:
    found = reproduced("anyscale-2023", 0.1)
    assert found["throughput at cap 1536"]["verdict"] == "agrees"
    assert found["naive static at cap 1536"]["verdict"] == "agrees"
    gain = found["continuous over static"]["value"]
    assert found["continuous over static at cap 32"]["value"] < gain / 2
    assert all(run["finished"] == run["requests"] for run in found["runs"])


class FewRates(VLLMSosp23):
    setup = replace(VLLMSosp23.setup, rates=(2.0, 3.5), alpaca_duration_s=10.0, precision=0.3)


def test_vllm_paging_serves_more_at_once_than_reservations_and_more_in_time() -> None:
    found = {figure.name: figure for figure in reproduce(FewRates(), scale=0.05).figures}
    assert found["sustained rate"].verdict == "agrees"
    for other in ("Orca (Oracle)", "Orca (Max)"):
        assert (found[f"at once, vLLM over {other}"].value or 0.0) > 1.3
        assert (found[f"rate, vLLM over {other}"].value or 0.0) > 1.1
    assert found["at once, ShareGPT: Orca (Max)"].value == pytest.approx(7.0, abs=0.2)


class ShareGPTAlone(SarathiOsdi24):
    setup = replace(
        SarathiOsdi24.setup,
        lengths=SarathiOsdi24.setup.lengths[:1],
        rates=((3.0,),),
        bounds_s=(0.1,),
        precision=0.2,
    )


def test_sarathi_bounds_the_tail_and_so_has_more_capacity() -> None:
    found = {figure.name: figure for figure in reproduce(ShareGPTAlone(), scale=0.25).figures}
    assert found["P99 time between tokens, sharegpt4 at 3/s"].verdict == "agrees"
    capacity = found["capacity over vLLM at 0.1 s, the larger of both data sets"]
    assert (capacity.value or 0.0) > 1.5


def test_vtc_keeps_the_gap_flat_where_first_come_first_served_lets_it_grow() -> None:
    found = reproduced("vtc-osdi24", 0.2)
    assert found["FCFS: gap after the whole over half the time (linear)"]["value"] > 1.7
    assert found["VTC: gap after the whole over half the time (flat)"]["verdict"] == "agrees"
    assert found["VTC: gap, at most twice U"]["verdict"] == "agrees"
    assert found["throughput, VTC over FCFS"]["verdict"] == "agrees"


class FewInstances(MCSF2025):
    setup = replace(MCSF2025.setup, sizes=(4,), count=4)


def test_mcsf_is_near_the_optimum_and_before_first_come_first_served() -> None:
    pytest.importorskip("ortools")
    found = reproduce(FewInstances())
    orders = [figure for figure in found.figures if figure.name.startswith("sum of latencies")]
    assert [figure.verdict for figure in orders] == ["agrees", "agrees"]
    for row in found.rows:
        assert row["optimum"] is None or number(row, "optimum") <= number(row, "MC-SF")


def test_mcsf_says_what_to_install_where_the_solver_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    message = refused("reproduce", "mcsf-2025")
    assert "OR-Tools" in message
    assert "pip install 'ortools>=9.10'" in message


class BrokenOff(VTCOsdi24):
    def trials(self, scale: float, seed: int) -> list[Trial]:
        def interrupted() -> Row:
            raise KeyboardInterrupt

        return [Trial({"system": "FCFS"}, lambda: {"gap": 1.0}), Trial({}, interrupted)]


def test_what_had_been_measured_is_kept_after_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        reproduce(BrokenOff(), out=tmp_path / "out")
    assert pd.read_parquet(tmp_path / "out" / "runs.parquet")["gap"].tolist() == [1.0]
    assert manifest(tmp_path / "out")["complete"] is False
    assert "after 1 of 2 runs" in manifest(tmp_path / "out")["stopped"]


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_every_setup_says_where_it_is_from_and_what_is_another(name: str) -> None:
    reproduction = REPRODUCTIONS[name]
    assert reproduction.name == name
    assert reproduction.title
    assert reproduction.source
    assert reproduction.notes
