"""The figures of a report as SVG and PDF for a paper, drawn without a browser."""

from pathlib import Path
from typing import Any

from schedsim.report.content import Report
from schedsim.report.figures import HEIGHT, Figure
from schedsim.report.page import LIGHT_SERIES, theme
from schedsim.results.directory import replacing, write_whole

WIDTH, LOWER = 340, 0.8
"""In points, where the column of a two-column paper is about 240 wide and a page of one 400; and
the height of a plane, in parts of that on the page."""

_PRINTED = theme("#000000", "#dddddd", LIGHT_SERIES)
PAPER = {
    **_PRINTED,
    "font": "Liberation Sans, Arial, sans-serif",
    "legend": {**_PRINTED["legend"], "columns": 3},
}


def export_figures(report: Report, folder: Path) -> list[Path]:
    """Write NAME.svg and NAME.pdf of every figure into a directory, made if need be.

    Raises:
        OutputError: a file cannot be written.
    """
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in report.figures:
        svg = svg_of(figure)
        write_whole(folder / f"{figure.name}.svg", svg)
        with replacing(folder / f"{figure.name}.pdf") as temporary:
            temporary.write_bytes(vl_convert.svg_to_pdf(svg))
        written += [folder / f"{figure.name}.svg", folder / f"{figure.name}.pdf"]
    return written


def svg_of(figure: Figure) -> str:
    """A figure as it is printed."""
    import vl_convert

    spec: dict[str, Any] = {**figure.spec, "width": WIDTH, "background": "white"}
    if spec["height"] == HEIGHT:
        spec["height"] = LOWER * HEIGHT
    svg: str = vl_convert.vegalite_to_svg(spec, config=PAPER)
    return svg
