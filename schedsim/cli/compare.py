"""`schedsim compare`: runs side by side, and which differences are more than chance."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import user_errors
from schedsim.cli.side_by_side import note
from schedsim.experiments.arms import load_arms
from schedsim.experiments.comparison import Comparison
from schedsim.experiments.comparison import compare as compare_arms
from schedsim.results.labels import LABELS
from schedsim.results.table import format_figure

EXAMPLES = """\
Examples:

schedsim run -q --limit 500 --policy vllm --policy sarathi --out results

schedsim compare results  (both policies on one trace, request by request)

schedsim run -q --limit 100 --arrivals poisson:rate=6 --repeats 4 --policy vllm --policy sjf --out r

schedsim compare r --baseline vllm --metric e2e_s.mean --metric ttft_s.p90  (seed by seed)
"""


@user_errors()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories, or folders of them.", metavar="RUN_DIR…")
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="ttft_s, tpot_s, e2e_s, queue_s or itl_s with .mean, .p50, .p90, .p95 or .p99; "
            "requests_per_s, output_tokens_per_s, goodput; may stand several times; default: means "
            "and p99 of latencies, throughput, goodput."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="The run to hold the others against, by its name; default: the first."),
    ] = None,
    level: Annotated[
        float, typer.Option(help="How likely one false difference in the table may be.")
    ] = 0.05,
    window: Annotated[
        Literal["whole", "steady"],
        typer.Option(help="All requests, or those that arrived after the warm-up."),
    ] = "whole",
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
) -> None:
    """Compare runs, simulated or executed, and say which differences are more than chance.

    Runs that differ in their seeds alone (`schedsim run --repeats`) are replications of each other;
    single runs are compared by batches of their requests.
    """
    comparison = compare_arms(
        load_arms(runs), metrics=metric or (), baseline=baseline, level=level, window=window
    )
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=2, ensure_ascii=False))
    else:
        print_comparison(comparison)
    if not quiet:
        for text in comparison.notes:
            note(text)


def print_comparison(comparison: Comparison) -> None:
    """The table of a comparison on stdout, and below it how it was made."""
    stdout_console().print(comparison_table(comparison))
    typer.echo(method_in_words(comparison))


def comparison_table(comparison: Comparison) -> Table:
    """A row a metric: the baseline with its interval, then each arm and its difference."""
    table = Table(show_edge=False, pad_edge=False)
    first, base, *others = comparison_headings(comparison)
    table.add_column(first)
    table.add_column(base, justify="right", overflow="fold")
    for arm, difference in zip(others[::2], others[1::2], strict=True):
        table.add_column(arm, justify="right", overflow="fold")
        table.add_column(difference, overflow="fold")
    for row in comparison_rows(comparison):
        table.add_row(*row)
    return table


def comparison_headings(comparison: Comparison) -> list[str]:
    """Those of `comparison_rows`."""
    base, *others = comparison.arms
    window = "steady window" if comparison.window == "steady" else "whole run"
    return [window, base, *(text for arm in others for text in (arm, f"less {base}"))]


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """The cells of each metric: its name, the baseline, then each arm and its difference."""
    base, *others = comparison.arms
    rows = []
    for metric in comparison.metrics:
        row = [metric_label(metric)[0], value_in_words(comparison, base, metric)]
        for arm in others:
            row.append(value_in_words(comparison, arm, metric))
            row.append(difference_in_words(comparison, arm, metric))
        rows.append(row)
    return rows


def metric_label(metric: str) -> tuple[str, str]:
    """How a table calls a metric, and its unit."""
    if metric in LABELS:
        return LABELS[metric]
    if metric == "goodput":
        return "goodput (share)", "share"
    name, _, part = metric.partition(".")
    label, unit = LABELS.get(f"{name}.mean", ("queue mean (s)", "seconds"))
    return label.replace("mean", part), unit


def value_in_words(comparison: Comparison, arm: str, metric: str) -> str:
    """A figure of an arm with half of its interval."""
    samples = comparison.samples.get((arm, metric))
    if samples is None:
        return "-"
    unit = metric_label(metric)[1]
    text = format_figure(samples.value, unit)
    if samples.values is None:
        return text
    half = samples.values.estimate.half_width(comparison.level)
    return f"{text} ± {format_figure(half, unit)}"


def difference_in_words(comparison: Comparison, arm: str, metric: str) -> str:
    """The difference of an arm with its interval, or that there is none to be seen."""
    difference = comparison.differences.get((arm, metric))
    if difference is None:
        return "too few samples" if metric.partition(".")[2] else "-"
    unit = metric_label(metric)[1]
    low, high = (_signed(bound, unit) for bound in difference.interval)
    interval = f"[{low}, {high}]"
    if not comparison.found(arm, metric):
        return f"no difference {interval}"
    base = comparison.samples[comparison.arms[0], metric].value
    change = f" = {100 * difference.estimate.value / base:+.1f} %" if base else ""
    return f"{_signed(difference.estimate.value, unit)} {interval}{change}"


def _signed(value: float, unit: str) -> str:
    return ("+" if value >= 0 else "-") + format_figure(abs(value), unit)


def method_in_words(comparison: Comparison) -> str:
    """How the intervals were made."""
    told = [samples for samples in comparison.samples.values() if samples.effective_size]
    if not told:
        return "no intervals: too few requests"
    if comparison.method == "replications":
        sizes = sorted({samples.size for samples in told})
        counts = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        how = f"{counts} replications"
    else:
        least = min(told, key=lambda samples: samples.effective_size or 0.0)
        how = (
            f"batches of the requests of one run each, of which {least.size:,} are worth "
            f"{least.effective_size:,.0f} independent ones or more"
        )
    if not comparison.differences:
        return f"intervals: {1 - comparison.level:.0%}, from {how}"
    pairs = {difference.paired for difference in comparison.differences.values()}
    same = "the same load" if comparison.method == "batches" else "the same seeds"
    paired = f", paired by {same}" if pairs == {True} else f", paired where {same} allows"
    return (
        f"intervals: {1 - comparison.level:.0%}, from {how}{paired if True in pairs else ''}; "
        f"differences corrected for {len(comparison.differences)} comparisons (Holm)"
    )
