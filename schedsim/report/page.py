"""A report as one HTML file: text, styles, figures and the code that draws them, nothing else."""

import html
import json
from importlib.resources import files
from typing import Any

from schedsim.report.content import Report, Section, Table

LIGHT_SERIES = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#854d0e")
DARK_SERIES = ("#60a5fa", "#fb923c", "#34d399", "#c084fc", "#f472b6", "#22d3ee", "#facc15")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"


NO_NETWORK = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)
"""What browsers hold the page to: it loads nothing. Vega compiles its expressions with eval."""


def theme(text: str, grid: str, series: tuple[str, ...]) -> dict[str, Any]:
    """The Vega-Lite configuration for a background on which `text` and `grid` can be read."""
    return {
        "background": None,
        "font": FONT,
        "padding": 4,
        "view": {"stroke": None},
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "tickColor": grid,
            "domainColor": grid,
            "gridColor": grid,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelLimit": 140,
            "labelOverlap": True,
            "tickCount": 6,
        },
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "orient": "top",
            "labelColor": text,
            "titleColor": text,
            "labelFontSize": 12,
            "labelLimit": 280,
            "symbolStrokeWidth": 3,
        },
        "range": {"category": list(series)},
    }


THEMES = {
    "light": theme("#374151", "#e5e7eb", LIGHT_SERIES),
    "dark": theme("#d1d5db", "#374151", DARK_SERIES),
}


def render_page(report: Report) -> str:
    """The HTML of a report. It names no address, so it opens without a network."""
    import vl_convert

    figures = [figure.spec for figure in report.figures]
    data = {"figures": figures, "themes": THEMES}
    numbers = {id(figure): place for place, figure in enumerate(report.figures)}
    body = "\n".join(_section(section, numbers) for section in report.sections)
    return _PAGE.format(
        policy=NO_NETWORK,
        title=html.escape(report.title),
        subtitle=html.escape(report.subtitle),
        style=_resource("page.css"),
        body=body,
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/"),
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace(
            "</script", "<\\/script"
        ),
        draw=_resource("page.js"),
    )


def _section(section: Section, numbers: dict[int, int]) -> str:
    parts = [f"<section>\n<h2>{html.escape(section.title)}</h2>"]
    parts += [_table(table) for table in section.tables]
    if section.figures:
        drawn = [
            f"<figure>\n<figcaption>{html.escape(figure.title)}</figcaption>\n"
            f'<div class="chart" id="figure-{numbers[id(figure)]}"></div>\n</figure>'
            for figure in section.figures
        ]
        parts.append('<div class="figures">\n' + "\n".join(drawn) + "\n</div>")
    if section.points:
        items = "\n".join(f"<li>{html.escape(text)}</li>" for text in section.points)
        parts.append(f"<ul>\n{items}\n</ul>")
    parts.append("</section>")
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in table.headings)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>"
        for row in table.rows
    )
    note = f"<p>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f'<div class="table">\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n'
        f"</table>\n</div>\n{note}"
    )


def _resource(name: str) -> str:
    return (files("schedsim.report") / name).read_text(encoding="utf-8")


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="subtitle">{subtitle}</p>
{body}
</main>
<script type="application/json" id="data">{data}</script>
<script>{bundle}</script>
<script>
{draw}</script>
</body>
</html>
"""
