"""A validation in tables and sentences, for the terminal and for the page alike."""

from collections.abc import Sequence
from typing import Any

from schedsim.experiments.validation.budget import TOLD
from schedsim.experiments.validation.cell_validation import CellValidation
from schedsim.experiments.validation.divergence import Divergence, Shared
from schedsim.experiments.validation.equivalence import Agreement
from schedsim.experiments.validation.judged import Row
from schedsim.experiments.validation.load_shift import FACTORS
from schedsim.experiments.validation.rates import SLO_SHARE
from schedsim.experiments.validation.saturation import FIRST, LAST, Capacity
from schedsim.experiments.validation.simulations import Replay
from schedsim.experiments.validation.validating import Validation
from schedsim.report.content import Table
from schedsim.results.labels import LABELS
from schedsim.results.table import format_figure

BUDGETED = (
    "output_tokens_per_s",
    "ttft_s.mean",
    "ttft_s.p90",
    "tpot_s.mean",
    "tpot_s.p90",
    "itl_s.mean",
    "e2e_s.mean",
    "e2e_s.p90",
)
"""The metrics whose error budget is shown; validation.json has all."""

CHOSEN = (
    "output_tokens_per_s",
    "ttft_s.mean",
    "ttft_s.p90",
    "tpot_s.mean",
    "tpot_s.p90",
    "e2e_s.mean",
    "e2e_s.p90",
)

_JUDGED_BY = ("error", "spread", "± (90 %)", "margin", "verdict")
_WRITTEN = {
    "decisions": "whole decision records, block tables included",
    "trail": "digests of the decisions, block tables included",
    "sizes": "the sizes of the batches, for the run wrote no decisions down",
}


def percent(share: float | None, signed: bool = False) -> str:
    """A share as text; a dash for none."""
    if share is None:
        return "-"
    return f"{100 * share:+.2f} %" if signed else f"{100 * share:.2f} %"


def tables_of(found: CellValidation) -> list[Table]:
    """Every table of a cell."""
    tables = [metrics_table(found)]
    if found.capacity is not None and found.capacity.is_saturated:
        tables.append(capacity_table(found.capacity))
    return [
        *tables,
        requests_table(found),
        budget_table(found),
        parts_table(found),
        steps_table(found),
    ]


def metrics_table(found: CellValidation) -> Table:
    """Measured, simulated, and what to make of the difference."""
    headings = ["whole run", "measured", "simulated", *_JUDGED_BY, "1 % slower"]
    return Table(headings, [_metric(row) for row in found.rows.values()])


def capacity_table(capacity: Capacity) -> Table:
    """Tokens per second while work was always in line."""
    rows = []
    for name, agreed in capacity.agreements.items():
        label, unit = LABELS[name]
        both = (capacity.mean(name), capacity.simulated[name])
        values = (format_figure(value, unit) for value in both)
        rows.append([label, *values, *_judged(agreed)])
    heading = f"saturated, {FIRST:.0%} to {LAST:.0%} of the work"
    return Table([heading, "measured", "simulated", *_JUDGED_BY], rows)


def requests_table(found: CellValidation) -> Table:
    """How far single requests are off, and how far repeats are apart."""
    rows = []
    for name, sides in found.requests.items():
        label = LABELS[f"{name}.mean"][0].partition(" mean")[0]
        for side, words in (("simulated", label), ("repeats", f"{label}, of the repeats")):
            figures = sides[side]
            if figures is not None:
                sizes = [percent(figures[q]) for q in ("p50", "p90", "p99")]
                bias = percent(figures["bias"], signed=True)
                rows.append([words, f"{figures['requests']:,}", bias, *sizes])
    headings = ["error of a request", "requests", "median", "|p50|", "|p90|", "|p99|"]
    return Table(headings, rows)


def budget_table(found: CellValidation) -> Table:
    """What of each error comes from where."""
    blocks = found.blocks
    named = ("error", *TOLD)
    headings = ["error budget", *(name.replace("_", " ") for name in named)]
    rows = []
    for name in BUDGETED:
        parts = found.budget[name]
        if parts["error"] is not None:
            cells = [percent(parts[part], signed=True) for part in named]
            if blocks is not None:
                cells.append(percent(blocks.adds[name], signed=True))
            rows.append([LABELS[name][0], *cells])
    if blocks is not None:
        headings.append(f"on top, with {blocks.formula:,} blocks for {blocks.engine:,}")
    return Table(headings, rows)


def parts_table(found: CellValidation) -> Table:
    """Where the time of the measured iterations goes, and what the step time says of it."""
    rows = []
    for name, seconds in found.steps["parts"].items():
        there, here = seconds["measured_s"], seconds["predicted_s"]
        error = percent(here / there - 1, signed=True) if there else "-"
        rows.append([name, f"{there:.3f}", f"{here:.3f}", error])
    return Table(["time of the measured batches (s)", "measured", "step time", "error"], rows)


def steps_table(found: CellValidation) -> Table:
    """The step time on the measured batches, by kind and by their tokens."""
    headings = ["step time on the measured batches", "tokens", "iterations", "median", "p90"]
    rows = [_step("all", "", found.steps, found.steps["total"])]
    for kind, figures in found.steps["by_kind"].items():
        sizes = [row for row in found.steps["by_size"] if row["kind"] == kind]
        if figures["iterations"]:
            rows.append(_step(kind, "", figures, figures["share"]))
        for row in sizes if len(sizes) > 1 else ():
            low, high = row["tokens"]
            span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            rows.append(_step("", span, row, row["share"]))
    return Table([*headings, "total", "of the total"], rows)


def choice_table(validation: Validation) -> Table | None:
    """What following the simulator would cost, where several policies served one load."""
    rows = [
        [
            LABELS[choice.metric][0],
            choice.best,
            choice.pick,
            percent(choice.regret),
            percent(choice.spread),
            "-" if choice.order is None else f"{choice.order:.2f}",
        ]
        for choice in validation.choices
        if choice.metric in CHOSEN
    ]
    headings = [
        "choice of a policy",
        "best",
        "the simulator's",
        "regret",
        "spread",
        "Kendall's tau",
    ]
    return Table(headings, rows) if rows else None


def sentences_of(found: CellValidation) -> list[str]:
    """What is no table: replays, decisions, the load shift, capacity where there is none."""
    return [
        *(replay_in_words(replay) for replay in found.replays),
        *(_divergence_in_words(place, d) for place, d in enumerate(found.divergences, start=1)),
        *_shifts_in_words(found.shifts),
        *_capacity_in_words(found.capacity),
    ]


def rate_sentences(validation: Validation) -> list[str]:
    """What is found of policies at several rates."""
    told = []
    for curve in validation.curves:
        rates = ", ".join(f"{rate:.3g}" for rate in curve.rates)
        shifts = "; ".join(_shifts_in_words(curve.shifts))
        text = f"{curve.policy} at {rates} requests/s: {shifts}"
        if curve.capacity_error is not None:
            text += (
                f"; {SLO_SHARE:.0%} of the requests keep their objectives up to "
                f"{curve.measured_capacity:.3f} requests/s measured and "
                f"{curve.simulated_capacity:.3f} simulated, "
                f"{percent(curve.capacity_error, signed=True)}"
            )
        told.append(text)
    return told


def replay_in_words(replay: Replay) -> str:
    """Whether the run's own times lead to the run's own decisions."""
    start = f"{replay.path.name} with the measured times: "
    if replay.error is not None:
        return start + replay.error
    if replay.same:
        steps = len(replay.record.steps)
        return f"{start}{steps:,} iterations decided alike, by {_WRITTEN[replay.compared]}"
    where = (
        ""
        if replay.first_difference is None
        else f", first in iteration {replay.first_difference:,}"
    )
    return f"{start}decided otherwise{where}; {replay.requests_differ:,} requests fared otherwise"


def _metric(row: Row) -> list[str]:
    label, unit = LABELS[row.name]
    mean = row.mean
    grows = "-" if row.amplification is None else f"{row.amplification:+.2f} %"
    agreed = row.agreement
    if row.is_judged and agreed is not None:
        judged = _judged(agreed)
    else:
        error = None if agreed is None else agreed.error
        spread = None if agreed is None else agreed.spread
        judged = [percent(error, signed=True), percent(spread), "", "", ""]
    if unit == "count":  # of repeats there is a mean
        unit = "rate"
    return [label, format_figure(mean, unit), format_figure(row.simulated, unit), *judged, grows]


def _judged(agreed: Agreement) -> list[str]:
    return [
        percent(agreed.error, signed=True),
        percent(agreed.spread),
        percent(agreed.half_width),
        f"{100 * agreed.margin:g} %",
        agreed.verdict,
    ]


def _step(kind: str, tokens: str, figures: dict[str, Any], share: float | None) -> list[str]:
    sizes = [percent(figures[name]) for name in ("median", "p90")]
    totals = [percent(value, signed=True) for value in (figures["total"], share)]
    return [kind, tokens, f"{figures['iterations']:,}", *sizes, *totals]


def _divergence_in_words(number: int, found: Divergence) -> str:
    measured, simulated = found.iterations
    start = f"free simulation against measured-{number}: "
    if found.same:
        return f"{start}every one of {measured:,} iterations is decided alike"
    order = "-" if found.order is None else f"{found.order:.3f}"
    return (
        f"{start}decides otherwise from iteration {found.first_difference:,} on "
        f"({measured:,} and {simulated:,} iterations); {_shared(found.admissions, 'admissions')}; "
        f"{_shared(found.victims, 'preemptions')}; Kendall's tau of the order of admission {order}"
    )


def _shared(found: Shared | None, what: str) -> str:
    if found is None:
        return f"{what} unknown"
    if found.in_both is None:
        return f"no {what}"
    return (
        f"{what} in both {percent(found.in_both)}, in the same iteration "
        f"{percent(found.in_same_iteration)}"
    )


def _shifts_in_words(shifts: dict[str, float | None]) -> list[str]:
    if not shifts:
        return []
    ends = f"none from {FACTORS[0] - 1:+.0%} to {FACTORS[-1] - 1:+.0%}"
    told = (
        f"{LABELS[name][0].partition(' (')[0]} {ends if x is None else f'{100 * x:+.1f} %'}"
        for name, x in shifts.items()
    )
    return [f"load that brings the latencies together: {', '.join(told)}"]


def _capacity_in_words(capacity: Capacity | None) -> Sequence[str]:
    if capacity is None:
        return ["no tokens in any time, so no capacity"]
    if capacity.is_saturated:
        return []
    return [
        f"not saturated: a request waited in {percent(capacity.in_line)} of the middle of the "
        "work, so that throughput is the load's and no capacity"
    ]
