"""The golden table: what every shipped policy makes of one shared trace, a row each.

300 requests of the Azure conversation trace, four times as fast as they came, on an engine whose
memory holds 28 of them. The trace names neither tenants nor priorities: the requests are dealt out.
"""

from pathlib import Path
from typing import Any

import numpy as np

import schedsim
from schedsim.policies import POLICIES
from schedsim.traces.trace import Trace
from schedsim.traces.transforms import limit, scale_time

TABLE = Path(__file__).parent / "golden.md"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"
SETTINGS = {
    "step_time": "roofline",
    "blocks": 2400,
    "max_model_len": 8192,
    "max_output": "factor:2",
    "predictor": "oracle",
    "slo_ttft": 2.0,
    "slo_tpot": 0.1,
}
COLUMNS = (
    "policy",
    "finished",
    "makespan s",
    "iterations",
    "TTFT mean s",
    "TTFT p99 s",
    "TPOT mean ms",
    "ITL p99 ms",
    "e2e mean s",
    "in time %",
    "preemptions",
    "recomputed",
    "swapped blocks",
    "service gap",
)
TITLE = f"""# Golden results

What every policy, with its default parameters, makes of the first 300 requests of the Azure
conversation trace at four times their rate, on llama-3-8b on an H100 with {SETTINGS["blocks"]}
blocks of 16 tokens. Targets are {SETTINGS["slo_ttft"]} s to the first token and 0.1 s a token
after that; output limits are twice the true lengths, and predictions true. Requests are dealt out
to four tenants, 4 : 3 : 2 : 1, and three priorities. The service gap is the largest difference of
tokens served to two tenants while both waited.

`pytest tests/policies/test_golden.py` compares, with `--write-golden` it writes this file.
"""


def golden_trace(folder: Path) -> Trace:
    """The trace of the table, from the folder of shared traces."""
    path = folder / "azure-2023" / "AzureLLMInferenceTrace_conv.csv.gz"
    trace = scale_time(limit(schedsim.read_trace(path), 300), 4.0)
    number = np.arange(len(trace))
    tenant = np.searchsorted([4, 7, 9, 10], number * 7 % 10, side="right")
    return Trace(
        trace.arrival,
        trace.prompt_tokens,
        trace.output_tokens,
        trace.source,
        tenant=tenant.astype(np.int64),
        priority=(number % 3).astype(np.int64),
    )


def golden_row(name: str, trace: Trace) -> dict[str, str]:
    """The row of a policy, by column."""
    result = schedsim.simulate(trace, name, **SETTINGS)
    summary = result.summary
    latency = summary["latency"]["whole"]
    fairness = summary["fairness"]
    cells: tuple[Any, ...] = (
        f"`{name}`",
        summary["requests"]["finished"],
        f"{summary['makespan_s']:.2f}",
        len(result.steps),
        f"{latency['ttft_s']['mean']:.3f}",
        f"{latency['ttft_s']['p99']:.3f}",
        f"{1000 * latency['tpot_s']['mean']:.2f}",
        f"{1000 * latency['itl_s']['p99']:.2f}",
        f"{latency['e2e_s']['mean']:.3f}",
        f"{100 * summary['goodput']['whole']['share']:.1f}",
        summary["preemptions"],
        summary["recomputed_tokens"],
        summary["swapped_blocks"],
        fairness["largest_service_difference_tokens"],
    )
    return dict(zip(COLUMNS, map(str, cells), strict=True))


def read_table() -> dict[str, dict[str, str]]:
    """The rows of the file, by policy; none if it is not there."""
    if not TABLE.exists():
        return {}
    rows = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0].strip("`")] = dict(zip(COLUMNS, cells, strict=True))
    return rows


def write_row(name: str, row: dict[str, str]) -> None:
    """Put the row of a policy into the file, and take out who is no policy any more."""
    rows = {**read_table(), name: row}
    lines = [" | ".join(COLUMNS), "|".join(["---", *["---:"] * (len(COLUMNS) - 1)])]
    lines += [" | ".join(rows[known].values()) for known in sorted(rows) if known in POLICIES]
    table = "\n".join(f"| {line} |" if " | " in line else f"|{line}|" for line in lines)
    TABLE.write_text(f"{TITLE}\n{table}\n", encoding="utf-8")


def place(name: str, rows: dict[str, dict[str, str]]) -> str:
    """Its rank by mean end-to-end latency, least first, equals share one; that; who is in time."""
    mean = float(rows[name]["e2e mean s"])
    rank = 1 + sum(float(row["e2e mean s"]) < mean for row in rows.values())
    return f"{rank} of {len(rows)}: {mean:.2f} s, {float(rows[name]['in time %']):.0f} %"


def read_places() -> dict[str, str]:
    """The last cell of each policy's line in docs/policies.md."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row[-1] for row in cells if row[0].strip("`") in POLICIES}


def write_places() -> None:
    """Put the places of the golden table into docs/policies.md."""
    rows = read_table()
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        name = line.partition(" | ")[0].strip("| `")
        if line.startswith("| `") and name in POLICIES:
            lines[number] = f"{line.rpartition(' | ')[0]} | {place(name, rows)} |"
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def differences(row: dict[str, str], golden: dict[str, str]) -> list[str]:
    """Where two rows differ: whole numbers at all, others by more than their last digit.

    Means of the same numbers may be summed in another order on another processor.
    """
    told = []
    for column, value in row.items():
        known = golden[column]
        apart = value != known
        if apart and "." in value and "." in known:
            step = 10.0 ** -len(known.partition(".")[2])
            apart = abs(float(value) - float(known)) > 1.001 * step
        if apart:
            told.append(f"{column}: {value}, golden is {known}")
    return told
