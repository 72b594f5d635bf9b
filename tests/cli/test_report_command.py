"""`schedsim report`: the page holds the numbers of the runs, and a browser draws it offline."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.cli.commands import names, refused, schedsim, summary

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
POLICIES = ("vllm", "sarathi", "vllm-v0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    policies = [part for name in POLICIES for part in ("--policy", name)]
    ended = schedsim(
        "run", "-q", "--limit", 150, "--gpu", "a100-40gb", *policies, "--out", folder / "out"
    )
    assert ended.exit_code == 0, ended.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    out = runs.parent / "report.html"
    ended = schedsim("report", runs, "--out", out, "--figures", runs.parent / "figures")
    assert ended.exit_code == 0, ended.stderr
    return out


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "rates.toml").write_text(
        """
[settings]
trace = "generate:azure-conv,requests=40,rate=6"
gpu = "a100-40gb"
slo_ttft = 0.5
[grid]
policy = ["vllm", "sarathi"]
rate_scale = [1.0, 2.0]
seed = [1, 2]
"""
    )
    assert schedsim("sweep", folder / "rates.toml", "--jobs", 1, "-q").exit_code == 0
    return folder / "rates"


def data_of(page: Path) -> dict[str, Any]:
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL
    )
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def values_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of a figure; where it has layers, those of the last one."""
    layers = [spec, *spec.get("layer", [])]
    name = next(layer["data"]["name"] for layer in reversed(layers) if "data" in layer)
    found: list[dict[str, Any]] = spec["datasets"][name]
    return found


def figure(page: Path, title: str) -> dict[str, Any]:
    """The specification of the figure with this title."""
    text = page.read_text()
    (number,) = re.findall(
        rf'<figcaption>{title}</figcaption>\n<div class="chart" id="figure-(\d+)"', text
    )
    spec: dict[str, Any] = data_of(page)["figures"][int(number)]
    return spec


def test_the_distributions_hold_the_quantiles_of_the_summaries(runs: Path, page: Path) -> None:
    for title, column in (
        ("Time to first token", "ttft_s"),
        ("Time per output token", "tpot_s"),
        ("End-to-end latency", "e2e_s"),
    ):
        points = {(p["run"], p["share"]): p["value"] for p in values_of(figure(page, title))}
        for run in POLICIES:
            told = summary(runs / run)["latency"]["whole"][column]
            for name, share in QUANTILES.items():
                assert points[run, share] == pytest.approx(told[name])
            assert points[run, 1.0] == pytest.approx(told["max"])


def test_the_memory_is_that_of_the_summaries(runs: Path, page: Path) -> None:
    points = {
        (p["run"], p["cause"]): p["share"] for p in values_of(figure(page, "KV cache by cause"))
    }
    for run in POLICIES:
        memory = summary(runs / run)["memory"]
        assert points[run, "tokens"] == memory["used"]
        assert points[run, "free"] == pytest.approx(1 - memory["reserved"])


def test_the_time_series_are_those_of_the_iterations(runs: Path, page: Path) -> None:
    points = pd.DataFrame(values_of(figure(page, "Running requests")))
    steps = pd.read_parquet(runs / "vllm" / "steps.parquet")
    seconds = steps["end"].str[-1] - steps["start"]
    told = points[points["run"] == "vllm"]
    assert told["time"].is_monotonic_increasing
    assert told["running"].max() <= steps["running"].max()
    mean = (steps["running"] * seconds).sum() / seconds.sum()
    assert told["running"].mean() == pytest.approx(mean, rel=0.1)


def test_the_page_says_the_summary_and_the_threats(page: Path) -> None:
    text = page.read_text()
    assert "<td>TTFT p99 (s)</td>" in text
    assert "<h2>Threats to validity</h2>" in text
    assert "a roofline&#x27;s" in text
    assert "Differences" in text


def test_every_axis_of_a_quantity_has_a_unit(page: Path, sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep.html"
    assert schedsim("report", sweep, "--out", out).exit_code == 0
    specs = [*data_of(page)["figures"], *data_of(out)["figures"]]
    assert len(specs) == 7 + 4
    for spec in specs:
        for layer in spec.get("layer", [spec])[-1:]:
            for axis in ("x", "y"):
                channel = layer["encoding"][axis]
                if channel["type"] == "quantitative":
                    assert re.search(r"\(.+\)|share|requests", channel["title"]), channel


def test_a_sweep_has_curves_with_intervals_over_the_seeds(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep.html"
    assert schedsim("report", sweep, "--out", out, "--title", "Rates & more").exit_code == 0
    assert "<h1>Rates &amp; more</h1>" in out.read_text()
    rows = pd.read_parquet(sweep / "runs.parquet")
    spec = figure(out, "End to end mean over throughput")
    points = values_of(spec)
    assert len(points) == 4
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["rule", "line"]
    chosen = rows[(rows["policy"] == "vllm") & (rows["rate_scale"] == 2.0)]
    (point,) = [p for p in points if p["series"] == "vllm" and p["at"] == 2.0]
    assert point["y"] == pytest.approx(chosen["latency.whole.e2e_s.mean"].mean())
    assert point["low"] <= point["y"] < point["high"]


def test_a_capacity_search_has_its_bars(tmp_path: Path) -> None:
    (tmp_path / "capacity.toml").write_text(
        """
[settings]
limit = 30
slo_ttft = 0.5
[grid]
policy = ["vllm", "sarathi"]
[capacity]
setting = "rate_scale"
low = 1
high = 64
tolerance = 1.0
keep = ["goodput.whole.share >= 0.9"]
"""
    )
    assert schedsim("sweep", tmp_path / "capacity.toml", "--jobs", 1, "-q").exit_code == 0
    out = tmp_path / "capacity.html"
    assert schedsim("report", tmp_path / "capacity", "--out", out).exit_code == 0
    rows = pd.read_parquet(tmp_path / "capacity" / "runs.parquet")
    found = rows[rows["is_capacity"]].set_index("policy")["rate_scale"].to_dict()
    points = values_of(figure(out, "Capacity"))
    assert {point["series"]: point["y"] for point in points} == found


def test_figures_are_written_for_papers(page: Path) -> None:
    folder = page.parent / "figures"
    stems = ("ttft", "tpot", "e2e", "running", "waiting", "held", "memory")
    assert names(folder) == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "pdf")}
    assert (folder / "ttft.pdf").read_bytes().startswith(b"%PDF")
    assert "TTFT (s)" in (folder / "ttft.svg").read_text()


def test_equal_runs_make_equal_pages(runs: Path, page: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    schedsim("report", runs, "--out", again, "-q")
    assert again.read_bytes() == page.read_bytes()


def test_what_cannot_be_reported_is_told(
    runs: Path, page: Path, sweep: Path, tmp_path: Path
) -> None:
    assert "exists; choose another name or replace it with --force" in refused(
        "report", runs, "--out", page
    )
    assert "no such run directory" in refused(
        "report", tmp_path / "x", "--out", tmp_path / "r.html"
    )
    assert "is a sweep; give it alone" in refused(
        "report", runs, sweep, "--out", tmp_path / "r.html"
    )


def test_the_page_names_no_address(page: Path) -> None:
    text = page.read_text()
    assert "Content-Security-Policy" in text
    assert "default-src 'none'" in text
    drawn_by, _, code = text.partition('<script type="application/json"')
    assert not re.search(r"(src|href)=|url\(|@import", drawn_by)
    assert re.findall(r"<script[^>]*>", code) == ["<script>", "<script>"]
    assert page.stat().st_size < 3_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_all_figures_without_a_complaint(
    page: Path, tmp_path: Path, dark: bool
) -> None:
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=10000",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={'400,900' if dark else '1280,900'}",
            "--enable-logging=stderr",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    # a request over the network breaks the page's own policy, which is a console error
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert len(re.findall(r'<div class="chart[^>]*>\s*<svg', done.stdout)) == 7
    drawn = re.findall(r'aria-label="share of the KV cache[^"]*"', done.stdout)
    assert len(drawn) == len(POLICIES) * 5
