"""The waterfall of a decomposition: from the first system to the last, a bar for each change."""

from collections.abc import Sequence
from typing import TypedDict

from schedsim.report.figures import ROW, Figure, figure_of, inline

ENDS, GAIN, LOSS = "#9ca3af", "#059669", "#ef4444"


class Step(TypedDict):
    """A bar from one rate to another; an end of the waterfall begins where the axis does."""

    name: str
    start: float
    end: float
    label: str
    kind: str


def steps_of(
    first: str, last: str, rate: float, factors: Sequence[tuple[str, float]]
) -> list[Step]:
    """The bars of a system whose `rate` is multiplied by the factors one after the other."""
    lowest = rate
    at = rate
    steps: list[Step] = []
    for name, factor in factors:
        kind = "gain" if factor >= 1 else "loss"
        steps.append(
            Step(name=name, start=at, end=at * factor, label=f"× {factor:#.3g}", kind=kind)
        )
        at *= factor
        lowest = min(lowest, at)
    floor = lowest / 2
    return [
        Step(name=first, start=floor, end=rate, label=f"{rate:,.0f}", kind="end"),
        *steps,
        Step(name=last, start=floor, end=at, label=f"{at:,.0f}", kind="end"),
    ]


def waterfall(name: str, title: str, axis: str, steps: Sequence[Step]) -> Figure:
    """Bars on a logarithmic axis, so that equal factors are equally long."""
    import altair as alt

    order = [step["name"] for step in steps]
    floor, top = min(s["start"] for s in steps), max(max(s["start"], s["end"]) for s in steps)
    chart = inline([dict(step) for step in steps])
    y = alt.Y("name:N", title=None, sort=order, axis=alt.Axis(labelLimit=0, domain=False))
    scale = alt.Scale(type="log", domain=[floor, top * 1.35], nice=False)
    kinds = alt.Scale(domain=["end", "gain", "loss"], range=[ENDS, GAIN, LOSS])
    bars = chart.mark_bar(size=16).encode(
        x=alt.X("start:Q", title=axis, scale=scale, axis=alt.Axis(format="~s")),
        x2="end:Q",
        y=y,
        color=alt.Color("kind:N", scale=kinds, legend=None),
        tooltip=[alt.Tooltip("name:N"), alt.Tooltip("label:N")],
    )
    labels = (
        chart.transform_calculate(right="max(datum.start, datum.end)")
        .mark_text(align="left", dx=4)
        .encode(x=alt.X("right:Q", scale=scale), y=y, text="label:N")
    )
    return figure_of(name, title, bars + labels, ROW * len(steps))
