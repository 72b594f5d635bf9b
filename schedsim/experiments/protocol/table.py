"""An evaluation as Markdown: what was within the margins, what was not, and why."""

from collections.abc import Iterator, Sequence
from typing import Any

from schedsim.experiments.protocol.evaluating import CHOSEN, HELD, Evaluation
from schedsim.experiments.validation.saturation import KINDS
from schedsim.results.labels import LABELS

_MARKS = {"spread": "*spread*", "beyond": "**beyond**", "far": "**far**"}


def markdown_of(evaluation: Evaluation, heading: str) -> str:
    """The page, from its heading to the end."""
    parts = [
        f"# {heading}",
        "Errors are (simulated - measured) / measured. No mark: within the margin; *spread*: "
        "beyond it, within what repeats differ; **beyond** both; **far**: beyond twice the wider "
        "one; then the cause that the error budget names, and after it what the error of the "
        "summed step time makes of the metric. In brackets: what repeats differ by. "
        "Verdicts: how many of the metrics are equivalent, inconclusive, different; of a capacity "
        "that of total tokens/s.",
        "## Below saturation",
        _table(_cell_rows(evaluation)),
        _in_words(evaluation),
        "## Capacity",
        _table(_capacity_rows(evaluation)),
        "## Choice of a policy",
        _table(_choice_rows(evaluation)),
    ]
    if evaluation.missing:
        parts += ["## Not measured", ", ".join(evaluation.missing)]
    return "\n\n".join(parts) + "\n"


def _cell_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    labels = [LABELS[name][0].partition(" (")[0] for name in HELD]
    yield ["cell", "repeats", "replay", "parts at", *labels, "verdicts"]
    for row in evaluation.cells:
        figures = [row["metrics"][name] for name in HELD]
        verdicts = [figure.get("verdict") for figure in figures]
        counts = (verdicts.count(v) for v in ("equivalent", "inconclusive", "different"))
        yield [
            row["cell"],
            str(row["repeats"]),
            _replay(row),
            _first(row),
            *(_error(figure, figure.get("cause")) for figure in figures),
            "/".join(map(str, counts)),
        ]


def _capacity_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    yield ["capacity of", "repeats", "replay", "total tokens/s", "output tokens/s", "verdict"]
    for row in evaluation.capacities:
        told = row["tokens_per_s"] or {}
        both = [told.get(name) for name in KINDS]
        errors = ["not saturated" if f is None else _error(f, row["cause"]) for f in both]
        verdict = "-" if both[0] is None else both[0]["verdict"]
        yield [row["capacity"], str(row["repeats"]), _replay(row), *errors, verdict]


def _choice_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    yield ["choice", "metric", "best", "the simulator's", "regret", "spread", "Kendall's tau"]
    for row in evaluation.choices:
        if row["metric"] in CHOSEN:
            tau = row["kendall_tau"]
            regret = _percent(row["regret"]) + (" **real**" if row["real"] else "")
            yield [
                row["choice"],
                LABELS[row["metric"]][0],
                row["best"],
                row["pick"],
                regret,
                _percent(row["spread"]),
                "-" if tau is None else f"{tau:.2f}",
            ]


def _in_words(evaluation: Evaluation) -> str:
    far = [row["cell"] for row in evaluation.cells if row["place"] == "far"]
    return (
        f"{len(evaluation.cells)} cells, of which {len(evaluation.beyond)} have a metric beyond "
        f"margin and spread ({', '.join(evaluation.beyond) or 'none'}), {len(far)} beyond twice "
        "that."
    )


def _table(rows: Iterator[list[str]]) -> str:
    head, *body = list(rows)
    if not body:
        return "None measured."
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _replay(row: dict[str, Any]) -> str:
    return "exact" if row["replay_same"] else "**differs**"


def _first(row: dict[str, Any]) -> str:
    """The iteration from which on the free simulation decides otherwise, by repeat."""
    found: Sequence[int | None] = row["first_difference"]
    return ", ".join("never" if place is None else f"{place:,}" for place in found)


def _error(figure: dict[str, Any], cause: str | None) -> str:
    """An error; outside the margin with where it stands, and why."""
    if figure["error"] is None:
        return "-"
    text = f"{100 * figure['error']:+.2f} %"
    if figure["spread"] is not None:
        text += f" ({100 * figure['spread']:.2f})"
    mark = _MARKS.get(figure["place"])
    if mark is None:
        return text
    if cause is not None:
        mark += f", {cause.replace('_', ' ')}"
    mean_step = figure.get("budget", {}).get("mean_step")
    return f"{text} {mark}" + ("" if mean_step is None else f" {100 * mean_step:+.1f} %")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
