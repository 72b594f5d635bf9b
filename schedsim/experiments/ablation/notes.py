"""What a reader of an ablation has to know beside its figures."""

from collections.abc import Mapping, Sequence

from schedsim.costs import FittedCost, load_gpu, load_model, make_step_cost
from schedsim.errors import ConfigError
from schedsim.experiments.ablation.burst import Cells
from schedsim.experiments.ablation.capacity import HEADROOM, Capacity
from schedsim.experiments.ablation.cells import Cell, Kernel
from schedsim.experiments.ablation.kernels import BLOCK_SIZE, NAMED
from schedsim.experiments.ablation.serving import Served
from schedsim.experiments.ablation.setup import Setup
from schedsim.sweep.traces import is_recipe
from schedsim.traces.trace import Trace


def notes_on_step_time(setup: Setup, kernel: Kernel) -> list[str]:
    """Of what the step time of a kernel was measured, if that is something else.

    Raises:
        ConfigError: it cannot be made; names the option.
    """
    engine, spec, option = setup.engine, setup.step_time(kernel), f"--{kernel}-kernel"
    model, gpu = load_model(engine.model), load_gpu(engine.gpu)
    try:
        cost = make_step_cost(spec, model, gpu, engine.tensor_parallel, engine.block_size)
    except ConfigError as error:
        told = str(error).rstrip(".")
        raise ConfigError(f"{option}: {told}; here also {', '.join(NAMED)}") from error
    notes = []
    if spec in NAMED.values() and engine.gpu != "h100":
        notes.append(
            f"the step time of the {kernel} kernel has the shares of peak figures that were "
            f"measured on an h100, on a {engine.gpu} they are a guess"
        )
    if spec in NAMED.values() and kernel == "paged" and engine.block_size != BLOCK_SIZE:
        notes.append(
            f"the step time of the paged kernel was measured with blocks of {BLOCK_SIZE} tokens, "
            f"not of {engine.block_size}"
        )
    if isinstance(cost, FittedCost):
        if cost.kernels not in (None, kernel):
            notes.append(f"{option} {spec} was fitted to {cost.kernels} kernels")
        if cost.model not in (None, engine.model):
            notes.append(f"{option} {spec} was fitted to {cost.model}")
        if cost.block_size not in (None, engine.block_size):
            notes.append(f"{option} {spec} was fitted to blocks of {cost.block_size}")
    return notes


def notes_on_draws(setup: Setup, draws: Sequence[Trace]) -> list[str]:
    """What of the trace is not there."""
    notes = []
    if not is_recipe(setup.trace):
        notes.append(
            f"requests are drawn from {setup.trace} with replacement, and of them lengths alone: "
            "no arrivals, limits, sessions or shared prefixes"
        )
    dropped = sum(draw.source.rows_read - len(draw) for draw in draws)
    if dropped:
        read = sum(draw.source.rows_read for draw in draws)
        notes.append(
            f"longer than the context and left out in every cell: {dropped} of the {read} requests "
            "of all repeats"
        )
    return notes


def notes_on_cells(cells: Cells) -> list[str]:
    """What some cells did not serve, and `notes_on_ranges`."""
    missing: dict[str, int] = {}
    for cell, filled in cells.items():
        count = sum(run.not_served for run in filled.runs)
        missing[cell.memory.name] = max(missing.get(cell.memory.name, 0), count)
    notes = [
        f"memory {name!r} never has room for {count} of the requests of all repeats, which the "
        "other cells serve: compare with it only where --blocks holds several of the longest"
        for name, count in missing.items()
        if count
    ]
    return notes + notes_on_ranges([run for filled in cells.values() for run in filled.runs])


def notes_on_ranges(runs: Sequence[Served]) -> list[str]:
    """That batches of some runs are beyond what their step time was fitted to."""
    beyond = [note for run in runs for note in run.notes if note.startswith("step times of ")]
    return [f"{beyond[0]}; the like in {len(beyond)} of {len(runs)} runs"] if beyond else []


def notes_on_capacities(cells: Cells, capacities: Mapping[Cell, Capacity]) -> list[str]:
    """That a capacity is only a bound, for its search ended at the highest rate it tries."""
    ended = [
        str(cell)
        for cell, capacity in capacities.items()
        if any(
            rate == HEADROOM * run.requests_per_s
            for rate, run in zip(capacity.rates, cells[cell].runs, strict=True)
        )
    ]
    if not ended:
        return []
    return [
        f"capacities bear the highest rate that is tried, {HEADROOM:g} times the burst's, and may "
        f"be more: {'; '.join(ended)}; more requests make a burst that tells more"
    ]
