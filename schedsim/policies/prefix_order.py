"""Orders of the waiting line by what a prefix cache holds of each request, as SGLang has them."""

from collections.abc import Callable, Sequence

from schedsim.request import Request
from schedsim.scheduler.step import Step

SHARED = 32
"""Cached tokens up to which a request waits for an earlier one that begins with as many alike."""

Key = Callable[[int, int], int | None]
"""`key(i, page)`: a number that says what the pages [0, page] of sequence `i` hold."""


def longest_prefix_first(step: Step) -> list[Request]:
    """The waiting line by what the cache holds, most first; who shall wait for another at its end.

    Of those with at most `SHARED` cached tokens that begin with the same `SHARED` tokens (whole
    pages of them) only the first is not put last.
    """
    matched: list[tuple[int, int, Request]] = []
    last: list[Request] = []
    beginnings: set[int] = set()
    page = step.blocks_for(SHARED) - 1
    for place, request in enumerate(step.waiting):
        cached = step.cached_tokens(request)
        beginning = step.content_key(request, page) if cached <= SHARED else None
        if beginning in beginnings:
            last.append(request)
            continue
        if beginning is not None:
            beginnings.add(beginning)
        matched.append((-cached, place, request))
    return [request for _, _, request in sorted(matched)] + last


def heaviest_subtree_first(step: Step) -> list[Request]:
    """The waiting line in the order of a depth-first walk of the cache's tree (dfs-weight).

    Of the branches of a node that for which most requests wait is walked first; who waits at the
    node itself, having no more of its prompt in the cache, comes after them.
    """
    line = step.waiting
    pages = [step.cached_tokens(request) // step.block_size for request in line]
    return [line[i] for i in depth_first(pages, lambda i, page: step.content_key(line[i], page))]


def depth_first(pages: Sequence[int], key: Key) -> list[int]:
    """The sequences 0, 1, … of `pages` pages each in that order; equal branches as they come.

    Of the tree only the branchings matter, and these are where two sequences part: `key` tells.
    O(n · depth · log pages), where depth counts branchings.
    """
    backwards: list[int] = []
    groups = [(list(range(len(pages))), 0)]
    while groups:  # the walk from its end: a node's own, then its branches, the lightest first
        group, start = groups.pop()
        shared = _common(group, start, pages, key)
        branches: dict[int | None, list[int]] = {}
        for i in group:
            if pages[i] > shared:
                branches.setdefault(key(i, shared), []).append(i)
        backwards += [i for i in reversed(group) if pages[i] == shared]
        groups += [(branch, shared + 1) for branch in sorted(branches.values(), key=_weight)]
    backwards.reverse()
    return backwards


def _weight(branch: list[int]) -> int:
    """The heaviest comes first; a sort keeps the order of equals."""
    return -len(branch)


def _common(group: list[int], start: int, pages: Sequence[int], key: Key) -> int:
    """Pages that all of a group have in common, which are at least `start`."""
    low, high = start, min((pages[i] for i in group), default=start)
    while low < high:
        middle = (low + high) // 2
        first = key(group[0], middle)
        if all(key(i, middle) == first for i in group):
            low = middle + 1
        else:
            high = middle
    return low
