"""What the ablation is asked: each question is one cell's rate over another's."""

from typing import NamedTuple

from schedsim.experiments.ablation.cells import (
    BUDDY,
    CONTINUOUS,
    EXACT,
    MAXIMUM,
    NAIVE,
    NOISY,
    PAGED,
    SORTED,
    SORTED_NOISY,
    STATIC,
    Cell,
    Memory,
    Scheduling,
    own_kernel,
)


class Question(NamedTuple):
    """What the ratio of two cells answers."""

    text: str
    over: Cell
    under: Cell


def _own(text: str, over: tuple[Scheduling, Memory], under: tuple[Scheduling, Memory]) -> Question:
    """Of two cells, each with the fastest kernel that its memory lets run."""
    return Question(text, own_kernel(*over), own_kernel(*under))


def _kernels(text: str, memory: Memory) -> Question:
    """Of both kernels under continuous batching."""
    return Question(text, Cell(CONTINUOUS, memory, "paged"), Cell(CONTINUOUS, memory, "contiguous"))


QUESTIONS: tuple[Question, ...] = (
    _own(
        "continuous batching alone, over naive static",
        (CONTINUOUS, MAXIMUM),
        (NAIVE, MAXIMUM),
    ),
    _own(
        "continuous batching alone, over tuned static",
        (CONTINUOUS, MAXIMUM),
        (STATIC, MAXIMUM),
    ),
    _own(
        "continuous over tuned static, both with exact lengths",
        (CONTINUOUS, EXACT),
        (STATIC, EXACT),
    ),
    _own("continuous over tuned static, both paged", (CONTINUOUS, PAGED), (STATIC, PAGED)),
    _own("paging on top of continuous batching", (CONTINUOUS, PAGED), (CONTINUOUS, MAXIMUM)),
    _own("paging on top of tuned static", (STATIC, PAGED), (STATIC, MAXIMUM)),
    _own("exact lengths without paging", (CONTINUOUS, EXACT), (CONTINUOUS, MAXIMUM)),
    _own("noisy lengths without paging", (CONTINUOUS, NOISY), (CONTINUOUS, MAXIMUM)),
    _own("noisy over exact lengths", (CONTINUOUS, NOISY), (CONTINUOUS, EXACT)),
    _own("buddy over first fit, exact lengths", (CONTINUOUS, BUDDY), (CONTINUOUS, EXACT)),
    _own("paging over exact lengths", (CONTINUOUS, PAGED), (CONTINUOUS, EXACT)),
    _own("paging over noisy lengths", (CONTINUOUS, PAGED), (CONTINUOUS, NOISY)),
    _own("static by exact over mixed static, exact lengths", (SORTED, EXACT), (STATIC, EXACT)),
    _own("static by exact length over continuous", (SORTED, EXACT), (CONTINUOUS, EXACT)),
    _own(
        "static by exact length over continuous, both paged",
        (SORTED, PAGED),
        (CONTINUOUS, PAGED),
    ),
    _own(
        "static by noisy length over continuous, both paged",
        (SORTED_NOISY, PAGED),
        (CONTINUOUS, PAGED),
    ),
    _kernels("paged over contiguous kernel, reserved to the maximum", MAXIMUM),
    _kernels("paged over contiguous kernel, exact lengths", EXACT),
    _kernels("paged over contiguous kernel, paged (counterfactual)", PAGED),
    _own("all of it, over naive static", (CONTINUOUS, PAGED), (NAIVE, MAXIMUM)),
)
"""Each asks of one burst what one cell serves over what another does."""
