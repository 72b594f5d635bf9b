"""The batch size of static batching: no straw man, searched in every cell."""

import math
from collections.abc import Callable


def search_size(value: Callable[[int], float], naive: int, limit: int) -> int:
    """The batch size from 1 to `limit` of the largest `value`; never worse than the naive one.

    Doubles from the naive size as long as that helps, and halves likewise; then tries the limit,
    and the sizes half way (of the logarithm) to the neighbours of the best. Finds the largest to
    within a factor √2 where `value` rises up to it and falls beyond it. Of equal ones the smallest.
    `value` is asked once for each size.
    """
    values: dict[int, float] = {}

    def is_better(size: int, than: int) -> bool:
        for asked in (size, than):
            if asked not in values:
                values[asked] = value(asked)
        return values[size] > values[than]

    start = min(naive, limit)
    size = start
    while size < limit and is_better(min(2 * size, limit), size):
        size = min(2 * size, limit)
    size = start
    while size > 1 and is_better(size // 2, size):
        size //= 2
    is_better(limit, start)
    best = _best(values)
    sizes = sorted(values)
    place = sizes.index(best)
    for neighbour in sizes[max(place - 1, 0) : place + 2]:
        between = round(math.sqrt(best * neighbour))
        if between not in values:
            values[between] = value(between)
    return _best(values)


def _best(values: dict[int, float]) -> int:
    return min(values, key=lambda size: (-values[size], size))
