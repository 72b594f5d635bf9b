"""The figures of a report as Vega-Lite, each a function of points; no figure without a unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from schedsim.errors import ConfigError
from schedsim.report.series import Points

if TYPE_CHECKING:
    import altair

INSTALL = "pip install 'schedsim[report]' brings it"

LOG_FROM = 30.0
"""Values are drawn on a logarithmic scale where the largest is this many times the median."""

HEIGHT = 260
"""Of a plane, in pixels; bars and rows of dots take what they need."""

BAR, ROW = 44, 22

CAUSE_COLORS = ("#3b82f6", "#8b5cf6", "#f59e0b", "#ef4444", "#9ca3af")
"""Of what the KV cache is used for, in the order of `memory_points`; seen on light and dark."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart: `name` for files, `title` for readers, and its Vega-Lite specification."""

    name: str
    title: str
    spec: dict[str, Any]


def check_installed() -> None:
    """Refuse before any work what needs packages that are not there.

    Raises:
        ConfigError: they are not installed.
    """
    missing = _missing()
    if missing:
        raise ConfigError(f"schedsim report needs {missing[0]}; {INSTALL}")


def is_installed() -> bool:
    """Whether figures can be drawn here."""
    return not _missing()


def _missing() -> list[str]:
    packages = (("altair", "altair"), ("vl_convert", "vl-convert-python"))
    return [name for package, name in packages if find_spec(package) is None]


def cdf(name: str, title: str, axis: str, points: Points, runs: Sequence[str]) -> Figure:
    """Distributions: the share of requests at or below a value."""
    import altair as alt

    x = alt.X("value:Q", title=axis, scale=_scale([point["value"] for point in points]))
    chart = _lines(points, 2).encode(
        x=x,
        y=alt.Y("share:Q", title="share of requests", axis=alt.Axis(format="%")),
        color=_color("run", runs),
        order="share:Q",
        tooltip=[
            alt.Tooltip("run:N"),
            alt.Tooltip("share:Q", format=".1%", title="requests up to"),
            alt.Tooltip("value:Q", format=".4~g", title=axis),
        ],
    )
    return figure_of(name, title, chart)


def over_time(name: str, title: str, column: str, points: Points, runs: Sequence[str]) -> Figure:
    """A quantity over the time of the runs."""
    import altair as alt

    is_share = column == "held"
    label = "share of the KV cache" if is_share else "requests"
    chart = _lines(points, 1.3).encode(
        x=alt.X("time:Q", title="time (s)"),
        y=alt.Y(
            f"{column}:Q",
            title=label,
            axis=alt.Axis(format="%" if is_share else "~s"),
            scale=alt.Scale() if any(p[column] for p in points) else alt.Scale(domain=[0, 1]),
        ),
        color=_color("run", runs),
        tooltip=[
            alt.Tooltip("run:N"),
            alt.Tooltip("time:Q", format=",.1f", title="time (s)"),
            alt.Tooltip(f"{column}:Q", format=".1%" if is_share else ",.1f", title=label),
        ],
    )
    return figure_of(name, title, chart)


def memory(points: Points, runs: Sequence[str]) -> Figure:
    """What the KV cache was used for, a bar a run."""
    import altair as alt

    causes = list(dict.fromkeys(point["cause"] for point in points))
    chart = (
        inline(points)
        .mark_bar(size=18, yOffset=9)
        .encode(
            x=alt.X(
                "share:Q",
                title="share of the KV cache, mean over time",
                axis=alt.Axis(format="%"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y=alt.Y("run:N", title=None, sort=list(runs), axis=_above_bars()),
            color=alt.Color(
                "cause:N",
                title=None,
                sort=causes,
                scale=alt.Scale(domain=causes, range=list(CAUSE_COLORS)),
            ),
            order="order:Q",
            tooltip=[
                alt.Tooltip("run:N"),
                alt.Tooltip("cause:N"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
    )
    return figure_of("memory", "KV cache by cause", chart, BAR * len({p["run"] for p in points}))


def tenants(points: Points, runs: Sequence[str]) -> Figure:
    """The mean TTFT of each tenant, a dot a run."""
    import altair as alt

    chart = (
        inline(points)
        .mark_point(filled=True, size=70, opacity=0.85)
        .encode(
            x=alt.X("ttft:Q", title="TTFT mean (s)", scale=_scale([p["ttft"] for p in points])),
            y=alt.Y("tenant:N", title="tenant"),
            color=_color("run", runs),
            tooltip=[
                alt.Tooltip("run:N"),
                alt.Tooltip("tenant:N"),
                alt.Tooltip("ttft:Q", format=".4~g", title="TTFT mean (s)"),
                alt.Tooltip("tokens:Q", format=",", title="output tokens"),
            ],
        )
    )
    rows = len({point["tenant"] for point in points})
    return figure_of("tenants", "Tenants: time to first token", chart, ROW * rows)


def against_measured(name: str, title: str, points: Points) -> Figure:
    """Percentiles of a simulation against those of a measured run; equal ones on the line."""
    import altair as alt

    values = [point[side] for point in points for side in ("measured", "simulated")]
    scale = alt.Scale(type="log", domain=[min(values), max(values)], nice=False)
    diagonal: Points = [{"at": min(values)}, {"at": max(values)}]
    line = (
        inline(diagonal)
        .mark_line(strokeDash=[4, 4], color="gray")
        .encode(x=alt.X("at:Q", scale=scale), y=alt.Y("at:Q", scale=scale))
    )
    dots = (
        inline(points)
        .mark_point(filled=True, size=28)
        .encode(
            x=alt.X("measured:Q", title="measured (s), percentiles 1 to 99", scale=scale),
            y=alt.Y("simulated:Q", title="simulated (s)", scale=scale),
            color=_color("metric", list(dict.fromkeys(p["metric"] for p in points))),
            tooltip=[
                alt.Tooltip("metric:N"),
                alt.Tooltip("share:Q", format=".0%", title="percentile"),
                alt.Tooltip("measured:Q", format=".4~g", title="measured (s)"),
                alt.Tooltip("simulated:Q", format=".4~g", title="simulated (s)"),
            ],
        )
    )
    return figure_of(name, title, line + dots)


def curve(
    name: str,
    title: str,
    points: Points,
    axes: tuple[str, str],
    *,
    is_share: bool = False,
    is_latency: bool = False,
) -> Figure:
    """Series of a sweep: lines through the means of the seeds, with their intervals.

    A point has `x`, `y`, `series`, `at` (the setting of that run), and `low` and `high` where there
    are several seeds.
    """
    import altair as alt

    series = list(dict.fromkeys(point["series"] for point in points))
    values = [point["y"] for point in points]
    scale = _scale(values) if is_latency else alt.Scale(zero=True)
    lowest = min(values) if is_latency and _is_skewed(values) else 0.0
    highest = 1.0 if is_share else float("inf")
    if is_share:
        scale = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format="%" if is_share else "~g")
    y = alt.Y("y:Q", title=axes[1], scale=scale, axis=axis)
    base = inline(points).encode(
        x=alt.X("x:Q", title=axes[0], scale=alt.Scale(zero=False)), color=_color("series", series)
    )
    lines = base.mark_line(point=alt.OverlayMarkDef(size=45)).encode(
        y=y,
        order="at:Q",
        tooltip=[
            alt.Tooltip("series:N"),
            alt.Tooltip("x:Q", format=".4~g", title=axes[0]),
            alt.Tooltip("y:Q", format=".1%" if is_share else ".4~g", title=axes[1]),
        ],
    )
    if not any("low" in point for point in points):
        return figure_of(name, title, lines)
    within = [
        {**point, "low": max(point["low"], lowest), "high": min(point["high"], highest)}
        for point in points
        if "low" in point
    ]
    bars = (
        inline(within)
        .mark_rule()
        .encode(
            x="x:Q",
            y=alt.Y("low:Q", scale=scale),
            y2="high:Q",
            color=_color("series", series),
        )
    )
    return figure_of(name, title, bars + lines)


def capacity_bars(title: str, axis: str, points: Points) -> Figure:
    """The capacity of each series."""
    import altair as alt

    series = [point["series"] for point in points]
    chart = (
        inline(points)
        .mark_bar(size=18, yOffset=9)
        .encode(
            x=alt.X("y:Q", title=axis),
            y=alt.Y("series:N", title=None, sort=series, axis=_above_bars()),
            color=alt.Color("series:N", legend=None, scale=alt.Scale(domain=series)),
            tooltip=[
                alt.Tooltip("series:N"),
                alt.Tooltip("y:Q", format=".4~g", title=axis),
            ],
        )
    )
    return figure_of("capacity", title, chart, BAR * len(points))


def _above_bars() -> "altair.Axis":
    """Names of bars above them, where even long ones have room."""
    import altair as alt

    return alt.Axis(
        labelAlign="left", labelPadding=-2, labelOffset=-11, labelLimit=0, ticks=False, domain=False
    )


def inline(points: Points) -> "altair.Chart":
    """A chart that carries its points."""
    import altair as alt

    return alt.Chart(alt.InlineData(values=points))


def _lines(points: Points, width: float) -> "altair.Chart":
    chart: altair.Chart = inline(points).mark_line(strokeWidth=width)
    return chart


def _color(column: str, names: Sequence[str]) -> "altair.Color":
    import altair as alt

    legend = alt.Legend() if len(names) > 1 else None
    domain = alt.Scale(domain=list(names))
    return alt.Color(f"{column}:N", title=None, scale=domain, legend=legend)


def _scale(values: Sequence[float | None]) -> "altair.Scale":
    """Logarithmic where a few values are far beyond most."""
    import altair as alt

    return alt.Scale(type="log", nice=False) if _is_skewed(values) else alt.Scale(zero=True)


def _is_skewed(values: Sequence[float | None]) -> bool:
    known = sorted(value for value in values if value is not None)
    return bool(known) and known[0] > 0 and known[-1] > LOG_FROM * known[len(known) // 2]


def figure_of(name: str, title: str, chart: Any, height: int = HEIGHT) -> Figure:
    """The figure of a finished chart."""
    spec = chart.properties(width="container", height=height).to_dict()
    del spec["config"]  # the page and the exports bring their own
    return Figure(name, title, spec)
