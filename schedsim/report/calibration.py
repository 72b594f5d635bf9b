"""The picture of a calibration: every iteration as measured and as fitted."""

from pathlib import Path
from typing import Any

import numpy as np

from schedsim.experiments.calibration import Calibration
from schedsim.experiments.iterations import KINDS
from schedsim.report.export import PAPER
from schedsim.report.series import Points
from schedsim.results.directory import write_whole

MOST_POINTS = 2000
"""Iterations that are drawn; of more, evenly many."""

SIZE = 300
"""Of a plane, in pixels."""

FURTHEST = 0.5
"""Errors beyond this share are drawn at it."""


def points_of(calibration: Calibration) -> Points:
    """The iterations to draw: kind, measured and fitted milliseconds, and the error as a share."""
    measured = calibration.iterations.period
    rows = np.flatnonzero((measured > 0) & (calibration.fitted > 0))
    if len(rows) > MOST_POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_POINTS).astype(np.int64)]
    kinds = calibration.iterations.kind
    error = np.clip(calibration.fitted / np.maximum(measured, 1e-12) - 1, -FURTHEST, FURTHEST)
    return [
        {
            "kind": KINDS[kinds[row]],
            "measured": 1e3 * float(measured[row]),
            "fitted": 1e3 * float(calibration.fitted[row]),
            "error": float(error[row]),
        }
        for row in rows
    ]


def picture(calibration: Calibration) -> dict[str, Any]:
    """Fitted against measured time of each iteration, and the error by the measured time; as
    Vega-Lite."""
    import altair as alt

    points = points_of(calibration)
    values = [point[side] for point in points for side in ("measured", "fitted")]
    scale = alt.Scale(type="log", domain=[min(values), max(values)], nice=False)
    kinds = [kind for kind in KINDS if any(point["kind"] == kind for point in points)]
    color = alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds))
    x = alt.X("measured:Q", title="measured (ms)", scale=scale)
    dots = alt.Chart(alt.InlineData(values=points)).mark_point(filled=True, size=12, opacity=0.5)
    ends: Points = [{"at": min(values)}, {"at": max(values)}]
    equal = (
        alt.Chart(alt.InlineData(values=ends))
        .mark_line(strokeDash=[4, 4], color="gray")
        .encode(x=alt.X("at:Q", scale=scale), y=alt.Y("at:Q", scale=scale))
    )
    against = equal + dots.encode(
        x=x, y=alt.Y("fitted:Q", title="fitted (ms)", scale=scale), color=color
    )
    errors = dots.encode(
        x=x,
        y=alt.Y(
            "error:Q",
            title="fitted / measured − 1",
            axis=alt.Axis(format="+%"),
            scale=alt.Scale(domain=[-FURTHEST, FURTHEST]),
        ),
        color=color,
    )
    sized = {"width": SIZE, "height": SIZE}
    provenance = calibration.file.provenance
    title = f"{provenance.get('model')} on {provenance.get('device')}"
    chart = alt.hconcat(against.properties(**sized), errors.properties(**sized), title=title)
    spec: dict[str, Any] = chart.to_dict()
    del spec["config"]
    return {**spec, "background": "white"}


def draw(calibration: Calibration, path: Path) -> None:
    """Write the picture to `path`, as SVG.

    Raises:
        OutputError: the file cannot be written.
    """
    import vl_convert

    write_whole(path, vl_convert.vegalite_to_svg(picture(calibration), config=PAPER))
