"""Fairness among tenants: how service differs between those that wait at the same time."""

from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.results.columns import RequestColumns
from schedsim.results.quantiles import Floats, Ints
from schedsim.results.token_times import TokenTimes

MAX_INSTANTS = 2000


def fairness(
    requests: RequestColumns, tokens: TokenTimes, step_ends: Floats, end_time: float
) -> dict[str, Any] | None:
    """The largest difference of service between two backlogged tenants, and Jain's index.

    A tenant is backlogged while one of its requests waits for its first admission. Service is
    read at the ends of iterations: all of them, or 2,000 equally spaced ones if there are more.
    None without tenants. O(tenants² · instants) time, O(tenants · instants + tenants²) memory.
    """
    names = np.unique(requests.tenant[requests.tenant >= 0])
    if not len(names):
        return None
    places = np.unique(np.linspace(0, max(len(step_ends) - 1, 0), MAX_INSTANTS).astype(np.int64))
    instants = step_ends[places[: len(step_ends)]]
    tenant = np.where(requests.tenant >= 0, np.searchsorted(names, requests.tenant), -1)
    service = _service(requests, tokens, tenant, len(names), instants)
    waits = _backlog_labels(requests, tenant, len(names), instants, end_time)
    return {
        "tenants": len(names),
        "largest_service_difference_tokens": _largest_difference(service, waits),
        "jain_index": _jain_index(service, waits, instants),
    }


def _service(
    requests: RequestColumns, tokens: TokenTimes, tenant: Ints, size: int, instants: Floats
) -> Ints:
    """Tokens delivered to each tenant by each instant: its prompts at their first token, outputs.

    Shape (tenants, instants).
    """
    width = len(instants) + 1

    def count(rows: Ints, bins: Ints, amounts: Ints) -> Ints:
        known = rows >= 0
        flat = rows[known] * width + bins[known]
        sums = np.bincount(flat, weights=amounts[known], minlength=size * width)
        return sums.reshape(size, width).astype(np.int64)

    started = np.flatnonzero(~np.isnan(requests.first_token))
    bins = np.searchsorted(instants, requests.first_token[started])
    gained = count(tenant[started], bins, requests.prompt_tokens[started] + 1)
    bins = np.searchsorted(instants, tokens.gap_end)
    gained += count(tenant[tokens.gap_request], bins, np.ones(len(bins), dtype=np.int64))

    # a span of decode iterations fills the bins from its first to its last, less its two margins
    upto = np.searchsorted(tokens.decode_ends[1:], instants, side="right")
    upto = np.append(upto, upto[-1] if len(upto) else 0)
    before = np.concatenate([[0], upto[:-1]])
    bin_of = np.searchsorted(instants, tokens.decode_ends)
    rows, first, last = tenant[tokens.span_request], tokens.span_first, tokens.span_last
    begins, ends = bin_of[first], bin_of[last]
    ones = np.ones(len(rows), dtype=np.int64)
    active = np.cumsum(count(rows, begins, ones), axis=1)
    active[:, 1:] -= np.cumsum(count(rows, ends, ones), axis=1)[:, :-1]
    gained += active * (upto - before)
    gained -= count(rows, begins, first - before[begins] - 1) + count(rows, ends, upto[ends] - last)
    return np.cumsum(gained, axis=1)[:, : len(instants)]


def _backlog_labels(
    requests: RequestColumns, tenant: Ints, size: int, instants: Floats, end_time: float
) -> Ints:
    """Which period of backlog each instant falls in, -1 for none; shape (tenants, instants)."""
    labels = np.full((size, len(instants)), -1, dtype=np.int64)
    rows = np.flatnonzero(requests.is_accepted & (tenant >= 0))
    rows = rows[np.lexsort((requests.arrival[rows], tenant[rows]))]
    begin = requests.arrival[rows]
    end = np.where(np.isnan(requests.admitted[rows]), end_time, requests.admitted[rows])
    bounds = np.searchsorted(tenant[rows], np.arange(size + 1))
    for index in range(size):
        own = slice(bounds[index], bounds[index + 1])
        if own.start == own.stop:
            continue
        reach = np.maximum.accumulate(end[own])
        opens = np.append(True, begin[own][1:] > reach[:-1])
        closes = np.append(opens[1:], True)
        period = np.searchsorted(begin[own][opens], instants, side="right") - 1
        inside = (period >= 0) & (instants <= reach[closes][period])
        labels[index, inside] = period[inside]
    return labels


def _largest_difference(service: Ints, waits: Ints) -> int | None:
    """Over all pairs and all times both stay backlogged: how far their service drifts apart."""
    largest: int | None = None
    if not service.shape[1]:
        return None
    high = low = service[:, 0, None] - service[None, :, 0]
    for place in range(1, service.shape[1]):
        stays = (waits[:, place] >= 0) & (waits[:, place] == waits[:, place - 1])
        both = stays[:, None] & stays[None, :]
        np.fill_diagonal(both, False)
        apart = service[:, place, None] - service[None, :, place]
        high = np.where(both, np.maximum(high, apart), apart)
        low = np.where(both, np.minimum(low, apart), apart)
        if both.any():
            drift = int((high - low)[both].max())
            largest = drift if largest is None else max(largest, drift)
    return largest


def _jain_index(service: Ints, waits: Ints, instants: Floats) -> float | None:
    """(Σx)² / (n Σx²) of the service per second of backlog; None below two backlogged tenants."""
    stays: npt.NDArray[np.bool_] = (waits[:, 1:] >= 0) & (waits[:, 1:] == waits[:, :-1])
    served = (np.diff(service, axis=1) * stays).sum(axis=1)
    seconds = (np.diff(instants) * stays).sum(axis=1)
    backlogged = seconds > 0
    rates = served[backlogged] / seconds[backlogged]
    squares = float((rates * rates).sum())
    if len(rates) < 2 or squares == 0:
        return None
    return float(rates.sum()) ** 2 / (len(rates) * squares)
