"""What `schedsim calibrate` prints of a fit, and errors of step times as tables."""

from typing import Any

from rich.table import Table

from schedsim.costs.features import FEATURES
from schedsim.costs.fitted_file import FittedFile, Part

PARTS = ("host", "device", "gap")


def coefficients_table(fitted: FittedFile) -> Table:
    """Microseconds for each unit, by feature and part; first and last where the slope changes."""
    shares = fitted.residuals["time_shares"]
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("µs for each")
    for name in PARTS:
        table.add_column(name, justify="right")
    table.add_column("range in the runs", justify="right")
    parts: list[Part] = [getattr(fitted.parts, name) for name in PARTS]
    table.add_row("iteration", *(_microseconds([part.base]) for part in parts), "")
    for name in FEATURES:
        slopes = [part.terms[name].slopes if name in part.terms else [0.0] for part in parts]
        low, high = fitted.ranges.get(name, (0.0, 0.0))
        table.add_row(name, *map(_microseconds, slopes), f"{low:,.0f} to {high:,.0f}")
    table.add_row("share of the time", *(percent(shares[part]) for part in PARTS), "")
    return table


def _microseconds(slopes: list[float]) -> str:
    ends = slopes if len(slopes) == 1 else [slopes[0], slopes[-1]]
    if not any(slopes):
        return "-"
    return " … ".join(f"{1e6 * slope:,.3g}" for slope in ends)


def residuals_table(fitted: FittedFile) -> Table:
    """How far the fit is off, over all iterations, on held-out ones, and by kind."""
    residuals = fitted.residuals
    rows = {"all": residuals["in_sample"], "held out": residuals["cross_validated"]}
    return errors_table("error of an iteration", rows | _by_kind(residuals["by_kind"]))


def adaptation_table(adapted: FittedFile) -> Table:
    """How far a file was off on the iterations that it was adapted to, and how far it is now, over
    all and by kind."""
    now = adapted.residuals["adapted"]
    rows = {"as it was": now["before"], "adapted": now, **_by_kind(now["by_kind"])}
    return errors_table("error of an iteration", rows)


def _by_kind(figures: dict[str, Any]) -> dict[str, Any]:
    return {kind if kind == "mixed" else f"{kind} only": own for kind, own in figures.items()}


def regions_table(fitted: FittedFile) -> Table | None:
    """How far it is off by region, on iterations whose size was held out; None if none was."""
    regions = fitted.residuals["by_region"].items()
    rows = {name: figures["held_out"] for name, figures in regions if figures["held_out"]}
    return errors_table("error of a size that was held out", rows) if rows else None


def errors_table(title: str, rows: dict[str, dict[str, Any] | None]) -> Table:
    """Figures of `error_figures`; rows without iterations are left out."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(title)
    for name in ("iterations", "median", "p90", "total"):
        table.add_column(name, justify="right")
    for label, figures in rows.items():
        if figures is not None and figures["iterations"]:
            sizes = [percent(figures[name]) for name in ("median", "p90")]
            table.add_row(
                label, f"{figures['iterations']:,}", *sizes, percent(figures["total"], signed=True)
            )
    return table


def percent(share: float | None, signed: bool = False) -> str:
    """A share as text; a dash for none."""
    if share is None:
        return "-"
    percents = round(100 * share, 2) + 0.0  # no minus before a zero
    return f"{percents:+.2f} %" if signed else f"{percents:.2f} %"
