"""Means over the time in which requests wait: what an engine does when there is enough to do."""

from dataclasses import dataclass

from schedsim.results import Result
from schedsim.results.quantiles import Floats


@dataclass(frozen=True, slots=True)
class InLine:
    """Requests at once, and what all token slots are used for: shares that add up to 1.

    `tokens` are those of requests that run, `ended` those of members of a static batch that have
    finished. The rest is as in docs/memory.md; `free` is what nobody could use for another reason.
    """

    requests: float
    tokens: float
    ended: float
    reserved: float
    internal: float
    external: float
    free: float


def seconds_in_line(result: Result) -> Floats:
    """How long each iteration took in which requests waited; 0 of the others."""
    table = result.steps_table
    end = table.column("end").combine_chunks().flatten().to_numpy()
    seconds: Floats = (end - table.column("start").to_numpy()) * (
        table.column("waiting").to_numpy() > 0
    )
    return seconds


def use_in_line(result: Result, block_size: int) -> InLine | None:
    """The means of a run whose blocks have `block_size` tokens; None if nobody ever waited."""
    seconds = seconds_in_line(result)
    total = float(seconds.sum())
    if total == 0.0:
        return None

    def mean(name: str) -> float:
        column = result.steps_table.column(name).to_numpy()
        return float((column * seconds).sum()) / total

    capacity = result.summary["memory"]["capacity_tokens"]
    stored, free = mean("stored_tokens"), mean("free_blocks") * block_size
    reserved, external = mean("reserved_slots"), mean("unusable_slots")
    ended = mean("padding_context") - mean("padding_requests")  # the newest token has no slot
    return InLine(
        requests=mean("running"),
        tokens=(stored - ended) / capacity,
        ended=ended / capacity,
        reserved=reserved / capacity,
        internal=(capacity - free - stored - reserved) / capacity,
        external=external / capacity,
        free=(free - external) / capacity,
    )
