"""The figures of a report as SVG and PDF for a paper, drawn without a browser."""

from pathlib import Path
from typing import Any

from schedsim.report.content import Report
from schedsim.report.page import LIGHT_SERIES, theme
from schedsim.results.directory import replacing, write_whole

WIDTH, HEIGHT = 340, 210
"""In points: the column of a two-column paper is about 240 wide, a page of one 400."""

PAPER = {**theme("#000000", "#dddddd", LIGHT_SERIES), "font": "Liberation Sans, Arial, sans-serif"}


def export_figures(report: Report, folder: Path) -> list[Path]:
    """Write NAME.svg and NAME.pdf of every figure into a directory, made if need be.

    Raises:
        OutputError: a file cannot be written.
    """
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in report.figures:
        spec: dict[str, Any] = {**figure.spec, "width": WIDTH, "background": "white"}
        if isinstance(spec.get("height"), int):
            spec["height"] = HEIGHT
        svg = vl_convert.vegalite_to_svg(spec, config=PAPER)
        write_whole(folder / f"{figure.name}.svg", svg)
        with replacing(folder / f"{figure.name}.pdf") as temporary:
            temporary.write_bytes(vl_convert.svg_to_pdf(svg))
        written += [folder / f"{figure.name}.svg", folder / f"{figure.name}.pdf"]
    return written
