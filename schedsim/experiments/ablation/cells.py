"""The cells of the ablation: how requests are batched × where their keys and values lie × kernel.

Data alone; nothing is run here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Knowledge = Literal["none", "oracle", "noisy"]
"""What is known of output lengths: nothing, the truth, or a prediction that errs."""

Kernel = Literal["contiguous", "paged"]
KERNELS: tuple[Kernel, ...] = ("contiguous", "paged")


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How requests are batched.

    `policy` is a spec; a static one lacks its batch size, which is searched if `is_tuned`, else is
    the largest that can never overflow. `knows` is what it orders requests by.
    """

    name: str
    policy: str
    knows: Knowledge = "none"
    is_static: bool = True
    is_tuned: bool = True


@dataclass(frozen=True, slots=True)
class Memory:
    """How memory is given: specs of one manager, of which the best is taken; what sizes it."""

    name: str
    managers: tuple[str, ...]
    knows: Knowledge = "none"


_STATIC = "static,reserve=prompt"
_SORTED = f"{_STATIC},order=predicted"

NAIVE = Scheduling("static, naive", _STATIC, is_tuned=False)
STATIC = Scheduling("static", _STATIC)
SORTED = Scheduling("static, by length", _SORTED, "oracle")
SORTED_NOISY = Scheduling("static, by noisy length", _SORTED, "noisy")
CONTINUOUS = Scheduling("continuous", "vllm", is_static=False, is_tuned=False)
SCHEDULINGS = (NAIVE, STATIC, SORTED, SORTED_NOISY, CONTINUOUS)

_FIRST_FIT = "contiguous,reserve=predicted"
_GATHERED = f"{_FIRST_FIT},compaction=true"

MAXIMUM = Memory("maximum", ("contiguous,reserve=max",))
EXACT = Memory("exact length", (_FIRST_FIT, _GATHERED), "oracle")
NOISY = Memory("noisy length", (_FIRST_FIT, _GATHERED, f"{_FIRST_FIT},margin=0.5"), "noisy")
BUDDY = Memory("buddy", ("buddy,reserve=exact",), "oracle")
PAGED = Memory("paged", ("paged",))
MEMORIES = (MAXIMUM, EXACT, NOISY, BUDDY, PAGED)


class Cell(NamedTuple):
    """A system of the ablation."""

    scheduling: Scheduling
    memory: Memory
    kernel: Kernel

    @property
    def is_counterfactual(self) -> bool:
        """Whether nobody can build it: a contiguous kernel finds no blocks that lie anywhere."""
        return self.memory is PAGED and self.kernel == "contiguous"

    @property
    def predictors(self) -> tuple[Knowledge, Knowledge | None]:
        """What the policy knows, and what memory is sized by where that is something else."""
        policy, memory = self.scheduling.knows, self.memory.knows
        if "none" in (policy, memory) or policy == memory:
            return memory if policy == "none" else policy, None
        return policy, memory

    def __str__(self) -> str:
        scheduling, memory, kernel = self
        return f"{scheduling.name} / {memory.name} / {kernel} kernel"


def all_cells() -> Iterator[Cell]:
    """Every combination, counterfactual ones too."""
    for scheduling in SCHEDULINGS:
        for memory in MEMORIES:
            for kernel in KERNELS:
                yield Cell(scheduling, memory, kernel)


def own_kernel(scheduling: Scheduling, memory: Memory) -> Cell:
    """The cell with the fastest kernel that the memory lets run."""
    return Cell(scheduling, memory, "paged" if memory is PAGED else "contiguous")
