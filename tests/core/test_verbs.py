"""Level-0 policies: an iteration composed from coarse and fine verbs in any order."""

from typing import Any

import pytest

from schedsim.errors import PolicyError
from schedsim.memory import PagedKVCache
from schedsim.policies import Policy, Release
from schedsim.request import Request, Status
from schedsim.scheduler import Scheduler, Step
from tests.core.harness import Jobs, simulate


class TwoByTurns(Policy):
    """At most two decodes an iteration, those with the fewest tokens first; else admits all."""

    def schedule(self, step: Step) -> None:
        decodes = [r for r in step.running if r.num_computed_tokens >= r.prompt_tokens]
        for request in sorted(decodes, key=lambda r: (r.num_generated_tokens, r.id))[:2]:
            assert step.run(request)
        step.admit_waiting()


def test_a_policy_may_run_a_subset_of_the_decodes() -> None:
    run = simulate(TwoByTurns(), Jobs([4] * 4, [4] * 4))
    assert [sorted(i.tokens) for i in run.iterations] == [
        [0, 1, 2, 3],
        [0, 1],
        [2, 3],
        [0, 1],
        [2, 3],
        [0, 1],
        [2, 3],
    ]
    assert [run.requests[i].finished for i in range(4)] == [6.0, 6.0, 7.0, 7.0]
    assert run.gaps(0) == [1.0, 2.0, 2.0]
    assert run.gaps(3) == [2.0, 2.0, 2.0]


class AdmitFirst(Policy):
    """Admits before it runs what runs."""

    def schedule(self, step: Step) -> None:
        step.admit_waiting()
        step.run_running()


def test_admitting_first_plans_nobody_twice() -> None:
    run = simulate(AdmitFirst(), Jobs([6, 6, 6], [2, 2, 2], arrivals=[0, 0, 1]), budget=8)
    assert [i.tokens for i in run.iterations] == [
        {0: 6, 1: 2},
        {2: 6, 0: 1, 1: 1},
        {1: 3, 2: 1},
        {1: 1},
    ]


def coarse_orders() -> list[list[str]]:
    names = ["run_running", "run_decodes", "run_prefills", "admit_waiting"]
    return [[a, b, c] for a in names for b in names for c in names]


@pytest.mark.parametrize("verbs", coarse_orders(), ids="-".join)
def test_coarse_verbs_in_any_order_keep_the_budget(verbs: list[str]) -> None:
    left: list[int] = []

    class Composed(Policy):
        def schedule(self, step: Step) -> None:
            for verb in [*verbs, "run_running", "admit_waiting"]:
                getattr(step, verb)()
            left.append(step.tokens_left)

    jobs = Jobs([9, 3, 14, 5], [6, 9, 4, 3], arrivals=[0, 0, 2, 3])
    run = simulate(Composed(), jobs, blocks=12, budget=7)
    assert left == [7 - sum(i.tokens.values()) for i in run.iterations]


@pytest.mark.parametrize("coarse", ["run_running", "run_decodes"])
def test_a_coarse_verb_after_a_fine_one_runs_everyone_else(coarse: str) -> None:
    class FirstByName(Policy):
        def schedule(self, step: Step) -> None:
            running = step.running
            if len(running) == 3:
                assert step.run(running[1])
                getattr(step, coarse)()
                assert step.tokens_left == 64 - 3
            else:
                super().schedule(step)

    run = simulate(FirstByName(), Jobs([4] * 3, [3] * 3))
    assert [sorted(i.tokens) for i in run.iterations] == [[0, 1, 2]] * 3


def test_a_batch_that_empties_by_preemption_gives_its_padding_back() -> None:
    class PagedStatic(Policy):
        """Static batches without a reservation: the last member may be evicted."""

        def release(self, request: Request) -> Release:
            return Release.BATCH_END

        def schedule(self, step: Step) -> None:
            if step.num_running:
                step.run_decodes()
            else:
                step.admit_waiting()

    # Two blocks each for a prompt of 5: 0 ends at once, 1 lacks a third block at 4 s.
    run = simulate(PagedStatic(), Jobs([5, 5], [1, 6]), blocks=4)
    assert [i.preempted for i in run.iterations if i.preempted] == [[1]]
    assert run.requests[1].status is Status.FINISHED


def plan(build: Any) -> Scheduler:
    """A scheduler whose policy is the function `build`, and two requests in line."""
    policy = Policy()
    policy.schedule = build  # type: ignore[method-assign]
    scheduler = Scheduler(policy, PagedKVCache(8, 4), max_seqs=2)
    for number in range(3):
        assert scheduler.add(Request(number, float(number), 6, 4), 4, 3.0)
    return scheduler


def admit_thrice(step: Step) -> None:
    for request in step.waiting:
        step.admit(request, 6)


def admit_too_much(step: Step) -> None:
    step.admit(step.waiting[0], 7)


def admit_nothing(step: Step) -> None:
    step.admit(step.waiting[0], 0)


def run_waiting(step: Step) -> None:
    step.run(step.waiting[0])


def run_twice(step: Step) -> None:
    request = step.waiting[0]
    step.admit(request, 2)
    step.run(request, 2)


def admit_running(step: Step) -> None:
    request = step.waiting[0]
    step.admit(request, 2)
    step.admit(request, 2)


def preempt_waiting(step: Step) -> None:
    step.preempt(step.waiting[0])


def reject_running(step: Step) -> None:
    request = step.waiting[0]
    step.admit(request, 2)
    step.reject(request, "no")


def reject_twice(step: Step) -> None:
    request = step.waiting[0]
    step.reject(request, "no")
    step.reject(request, "no")


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (admit_thrice, "request 2 is admitted beyond the 2 seats"),
        (admit_too_much, "request 0 is given 7 tokens, it has 6 left to compute"),
        (admit_nothing, "request 0 is given 0 tokens"),
        (run_waiting, "request 0 cannot be run, it is waiting"),
        (run_twice, "request 0 is run twice in one iteration"),
        (admit_running, "request 0 cannot be admitted, it is running"),
        (preempt_waiting, "request 0 cannot be preempted, it is waiting"),
        (reject_running, "request 0 cannot be rejected, it is running"),
        (reject_twice, "request 0 cannot be rejected, it is rejected"),
    ],
)
def test_an_impossible_action_is_an_error_that_names_all(build: Any, problem: str) -> None:
    with pytest.raises(PolicyError, match=f"policy 'policy', iteration 0: {problem}"):
        plan(build).schedule(3.0)


def test_an_admission_that_does_not_fit_says_so_and_changes_nothing() -> None:
    def admits(step: Step) -> None:
        first, second, _ = step.waiting
        assert step.admit(first, 6, reserve=28)
        assert step.free_blocks == 1
        assert not step.admit(second, 6)
        assert step.admit(second, 4)

    scheduler = plan(admits)
    batch = scheduler.schedule(3.0)
    scheduler.check()
    assert [(e.request.id, e.tokens) for e in batch.expand()] == [(0, 6), (1, 4)]


def test_who_is_admitted_and_preempted_in_one_iteration_waits_again() -> None:
    def admits(step: Step) -> None:
        first = step.waiting[0]
        assert step.admit(first, 6)
        step.preempt(first)
        assert step.tokens_left == step.token_budget
        assert step.admitted == []
        assert step.waiting[0] is first

    scheduler = plan(admits)
    batch = scheduler.schedule(3.0)
    scheduler.check()
    assert batch.is_empty
    assert [request.id for request in batch.preempted] == [0]


def test_a_policys_own_exception_is_told_with_its_place() -> None:
    def breaks(step: Step) -> None:
        raise ZeroDivisionError("division by zero")

    pattern = r"raised ZeroDivisionError: division by zero in iteration 0 \(.*test_verbs.py, line"
    with pytest.raises(PolicyError, match=pattern):
        plan(breaks).schedule(3.0)


TRUE_OUTPUT = 7919


def reachable(root: Any) -> list[tuple[str, Any]]:
    """Every value that public names lead to from `root`, three steps deep, with its path."""
    found: list[tuple[str, Any]] = []
    edge = [("", root)]
    for _ in range(3):
        following = []
        for path, value in edge:
            if isinstance(value, list | tuple):
                inner = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
            elif isinstance(value, Request | Step) or type(value).__name__ == "Chunk":
                names = [name for name in dir(value) if not name.startswith("_")]
                inner = [(f"{path}.{name}", getattr(value, name)) for name in names]
            else:
                inner = []
            following += inner
        found += following
        edge = following
    return found


def test_no_public_name_leads_a_policy_to_a_true_output_length() -> None:
    looks: list[int] = []

    class Nosy(Policy):
        def look(self, step: Step, request: Request | None = None) -> None:
            values = reachable([step, request])
            looks.append(len(values))
            for path, value in values:
                assert callable(value) or value != TRUE_OUTPUT, path
                assert value != TRUE_OUTPUT - 1, path

        def accept(self, request: Request, step: Step) -> bool:
            self.look(step, request)
            return True

        def on_arrival(self, request: Request, step: Step) -> None:
            self.look(step, request)

        def on_admit(self, request: Request, step: Step) -> None:
            self.look(step, request)

        def schedule(self, step: Step) -> None:
            super().schedule(step)
            self.look(step)

    scheduler = Scheduler(Nosy(), PagedKVCache(10_000, 16), max_model_len=50_000)
    assert scheduler.add(Request(0, 0.0, 100, 20_000), TRUE_OUTPUT, 0.0)
    for iteration in range(30):
        scheduler.complete(scheduler.schedule(float(iteration)), iteration + 1.0)
    assert len(looks) == 33
    assert min(looks) > 30
