"""EDF on one seat meets all deadlines of all tokens whenever any schedule does."""

from dataclasses import dataclass

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from schedsim.policies import EDF, VLLM, Policy
from tests.core.harness import Jobs, Run, simulate

CHUNK = 8


@dataclass(frozen=True)
class Task:
    """A job of one token after another: each needs iterations of a second, and has a deadline."""

    arrival: int
    prefill: int
    tokens: int
    ttft: int
    tpot: int

    def windows(self) -> list[tuple[int, int]]:
        """For each iteration: the slot from which it can run, and the one before which it must."""
        windows = []
        for place in range(self.prefill + self.tokens - 1):
            token = max(0, place - self.prefill + 1)
            due = self.arrival + self.ttft + token * self.tpot
            spare = max(0, self.prefill - 1 - place)  # chunks that have to follow until then
            windows.append((self.arrival + place, due - spare))
        return windows


TASKS = st.lists(
    st.builds(
        Task,
        st.integers(0, 14),
        st.integers(1, 4),
        st.integers(1, 4),
        st.integers(1, 16),
        st.integers(1, 6),
    ),
    min_size=1,
    max_size=6,
)


def is_feasible(tasks: list[Task]) -> bool:
    """Whether slots of one second can be matched to all iterations inside their windows.

    Windows of a job move forward with its iterations, so that a matching can be put in order.
    """
    windows = [window for task in tasks for window in task.windows()]
    horizon = max(max(end for _, end in windows), 1)
    allowed = np.zeros((len(windows), horizon), dtype=np.int8)
    for row, (begin, end) in enumerate(windows):
        allowed[row, begin : max(begin, end)] = 1
    matching = maximum_bipartite_matching(csr_matrix(allowed), perm_type="column")
    return bool((matching >= 0).all())


def run_one_seat(policy: Policy, tasks: list[Task]) -> Run:
    jobs = Jobs(
        [CHUNK * task.prefill for task in tasks],
        [task.tokens for task in tasks],
        [task.arrival for task in tasks],
        ttft_slos=[task.ttft for task in tasks],
        tpot_slos=[task.tpot for task in tasks],
    )
    return simulate(policy, jobs, seats=1, budget=CHUNK, blocks=200, memory="paged,host_blocks=500")


def misses(run: Run, tasks: list[Task]) -> int:
    """Tokens that came late."""
    emitted = dict.fromkeys(range(len(tasks)), 0)
    late = 0
    for iteration in run.iterations:
        for number in iteration.sampled:
            task = tasks[number]
            due = task.arrival + task.ttft + emitted[number] * task.tpot
            late += iteration.start + 1.0 > due
            emitted[number] += 1
    return late


@given(TASKS.map(lambda tasks: sorted(tasks, key=lambda task: task.arrival)))
def test_edf_meets_every_deadline_where_any_schedule_does(tasks: list[Task]) -> None:
    feasible = is_feasible(tasks)
    event(f"feasible: {feasible}")
    policy = EDF(preemptive=True, preemption="swap")
    assert (misses(run_one_seat(policy, tasks), tasks) == 0) == feasible


def test_the_order_of_arrival_misses_deadlines_that_edf_meets() -> None:
    tasks = [Task(0, 4, 4, 16, 6), Task(1, 1, 1, 2, 1)]
    assert is_feasible(tasks)
    assert misses(run_one_seat(VLLM(), tasks), tasks) == 1
    assert misses(run_one_seat(EDF(), tasks), tasks) == 1, "it must displace to meet all"
    assert misses(run_one_seat(EDF(preemptive=True, preemption="swap"), tasks), tasks) == 0
