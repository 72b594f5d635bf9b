"""A recorded run of vLLM 0.19, and what its records tell of each other.

../shared/oracles/README.md says what the files hold.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

FOLDER = Path(__file__).parents[3] / "shared" / "oracles" / "vllm_runs" / "RTX4090_Llama-3.1-8B"


class Recorded(NamedTuple):
    """The real run: a row a request in the order of its queue, a row a second, and its engine."""

    requests: pd.DataFrame
    series: pd.DataFrame
    config: dict[str, Any]
    tables: Path


def read_run(folder: Path = FOLDER) -> Recorded:
    """What was recorded; times in seconds since the first request was queued."""
    rows = pd.read_csv(folder / "measured_and_sim.csv")
    rows = rows.sort_values(["queued_s", "id"], kind="stable").reset_index(drop=True)
    rows["e2e_s"] = rows["last_token_s"] - rows["queued_s"]
    rows["ttft_s"] = rows["first_token_s"] - rows["queued_s"]
    rows["tpot_s"] = (rows["last_token_s"] - rows["first_token_s"]) / (rows["output_toks"] - 1)
    series = pd.read_csv(folder / "vllm_timeseries_1s.csv")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Recorded(rows, series, config, folder / "profile_bundle" / "tp1")


def clock_offset(run: Recorded) -> float:
    """By how much the series' clock is ahead of the engine's, from what both recorded.

    `prompt_throughput` counts each prompt in the second of its first token, so few offsets put all
    of them into the right seconds; the middle one is taken.
    """
    rows, recorded = run.requests, run.series["prompt_throughput"].to_numpy()
    tried = np.arange(0.0, 1.0, 0.001)
    fitting = []
    for offset in tried:
        seconds = np.floor(rows["first_token_s"] + offset).astype(int)
        counted = np.bincount(seconds, rows["input_toks"], len(recorded))
        if len(counted) == len(recorded) and np.allclose(counted, recorded, atol=0.5):
            fitting.append(offset)
    assert fitting, "the series and the requests are not of one run"
    return float(np.median(fitting))


def engine_times(run: Recorded) -> Floats:
    """When the rows of the series end, by the engine's clock."""
    return np.asarray(run.series["t"].to_numpy() - clock_offset(run))


class Sharing(NamedTuple):
    """A second, the blocks that its requests need at least if none shares any, and those in use."""

    second: int
    needed: int
    used: int


def shared_prompts(run: Recorded) -> list[Sharing]:
    """The seconds whose requests cannot have had all their blocks to themselves.

    Only seconds are looked at whose running requests are known by name: they are as many as were
    scheduled once and have not ended, and all have their first token. The series tells all tokens
    generated up to then, and those of the ended are known, so what is left is theirs.
    """
    rows, series = run.requests, run.series
    cache = run.config["kv_cache"]
    generated = series["gen_throughput"].cumsum().to_numpy()
    found = []
    for row, moment in enumerate(engine_times(run)):
        ended = rows["last_token_s"] <= moment
        inside = rows[(rows["scheduled_s"] <= moment) & ~ended]
        running = len(inside) == series["running"][row]
        if not running or (inside["first_token_s"] > moment).any():
            continue
        tokens = inside["input_toks"].sum() + generated[row] - rows["output_toks"][ended].sum()
        # The newest token of each may not be in the cache yet.
        needed = int((tokens - len(inside)) // cache["block_size"])
        used = round(series["kv_cache_pct"][row] / 100.0 * (cache["num_gpu_blocks"] - 1))
        if needed > used:
            found.append(Sharing(int(series["t"][row]), needed, used))
    return found
