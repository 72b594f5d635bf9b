"""The iterations of runs that a calibration is fitted to."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.errors import ResultError
from schedsim.experiments.choosing import LEAST_ITERATIONS
from schedsim.experiments.design_file import DESIGN, DESIGNED, is_counted
from schedsim.experiments.iterations import Iterations, iterations_of, joined
from schedsim.experiments.provenance import check_alike
from schedsim.results.stored_run import StoredRun

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Counted(NamedTuple):
    """The iterations of runs that count, one run after the other.

    `counts` are those of each run; `device` is on which of `devices` (UUIDs, None where none was
    noted) each ran, `rates` the tokens/s of late at their ends for a window (s) and a weight of
    contexts.
    """

    iterations: Iterations
    counts: list[int]
    devices: list[str | None]
    device: Ints
    rates: Callable[[float, float], Floats]


def counted_iterations(runs: Sequence[StoredRun]) -> Counted:
    """Those of all runs, but of a run of designed batches those that its design says.

    Raises:
        ConfigError: as `check_alike`.
        ResultError: too few iterations, or none that took time; steps without the columns that it
            takes; designed batches without the file that says what counts.
    """
    check_alike(runs)
    whole, counted = [], []
    for run in runs:
        if _is_designed(run) and not (run.path / DESIGN).is_file():
            raise ResultError(
                f"{run.path} has run designed batches and lacks {DESIGN}, which says what of them "
                "counts; calibrate anew"
            )
        found = iterations_of(run)
        whole.append(found)
        counted.append(is_counted(run.path, found.row) & ~_beside_swaps(found))
    each = [found.take(rows) for found, rows in zip(whole, counted, strict=True)]
    iterations = joined(each)
    where = ", ".join(DESIGNED if _is_designed(run) else str(run.path) for run in runs)
    if len(iterations) < LEAST_ITERATIONS:
        raise ResultError(
            f"{where}: {len(iterations)} iterations are too few for a fit, {LEAST_ITERATIONS} are "
            "the least; give longer runs, or more --time-limit and --passes"
        )
    if not iterations.period.any():
        raise ResultError(f"{where}: no iteration took any time, so there is nothing to fit")

    def rates(window_s: float, context: float) -> Floats:
        pairs = zip(whole, counted, strict=True)
        return np.concatenate(
            [found.token_rates(window_s, context)[1][rows] for found, rows in pairs]
        )

    counts = [len(found) for found in each]
    ran_on = [(run.device_uuid, count) for run, count in zip(runs, counts, strict=True) if count]
    devices = list(dict.fromkeys(uuid for uuid, _ in ran_on))
    device = np.repeat([devices.index(uuid) for uuid, _ in ran_on], [count for _, count in ran_on])
    return Counted(iterations, counts, devices, device, rates)


def _is_designed(run: StoredRun) -> bool:
    return bool(run.manifest["config"].get("policy") == DESIGNED)


def _beside_swaps(iterations: Iterations) -> npt.NDArray[np.bool_]:
    """Iterations that were slowed down by swaps of the next one, which began meanwhile: their own
    batches say nothing of it."""
    swaps = iterations.timed & (iterations.terms["swapped_blocks"] > 0)
    return np.append(swaps[1:], False)
