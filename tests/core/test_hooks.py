"""Every hook of level 1 as a user writes it, through a simulation of one second an iteration."""

from collections import Counter
from collections.abc import Hashable
from typing import Any

import pytest

from schedsim.errors import PolicyError
from schedsim.policies import VLLM, Gate, Policy
from schedsim.request import Request, Status
from schedsim.scheduler import Step
from schedsim.scheduler.batch import BatchShape
from tests.core.harness import Jobs, simulate


class RoundRobin(Policy):
    """Sub-queues by tenant, the one that was admitted least first."""

    def __init__(self) -> None:
        self.admitted: Counter[int] = Counter()

    def group(self, request: Request) -> Hashable:
        return request.tenant

    def group_key(self, group: Any) -> Any:
        return self.admitted[group]

    def on_admit(self, request: Request, step: Step) -> None:
        self.admitted[request.tenant] += 1


def test_groups_are_ranked_anew_at_every_admission() -> None:
    jobs = Jobs([4] * 7, [2] * 7, tenants=[0, 0, 0, 0, 1, 1, 2])
    assert simulate(RoundRobin(), jobs, seats=1).admissions() == [0, 4, 6, 1, 5, 2, 3]
    # The same inside one iteration, where the counters move between two looks.
    assert simulate(RoundRobin(), jobs, seats=3).iterations[0].admitted == [0, 4, 6]


class ShortestPrompt(Policy):
    """One line, the shortest prompt first; ties by arrival."""

    def key(self, request: Request) -> Any:
        return request.prompt_tokens


def test_key_orders_the_line_and_ties_break_by_id() -> None:
    jobs = Jobs([9, 5, 7, 5], [1, 1, 1, 1])
    assert simulate(ShortestPrompt(), jobs, seats=1).admissions() == [1, 3, 2, 0]


class Closed(Policy):
    """Answers `verdict` for request 0 before `until`."""

    def __init__(self, verdict: Gate, until: float) -> None:
        self.verdict = verdict
        self.until = until

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        return self.verdict if request.id == 0 and step.now < self.until else Gate.ADMIT

    def wake_at(self, step: Step) -> float | None:
        return self.until


def test_skip_looks_at_the_next_and_stop_ends_admission() -> None:
    jobs = Jobs([4, 4, 4], [6, 3, 3])
    skip = simulate(Closed(Gate.SKIP, 2.0), jobs)
    assert [i.admitted for i in skip.iterations[:3]] == [[1, 2], [], [0]]
    stop = simulate(Closed(Gate.STOP, 2.0), jobs)
    assert stop.iterations[0].start == 2.0
    assert stop.iterations[0].admitted == [0, 1, 2]


class CountsTheLine(Policy):
    """Skips everyone once and writes down how many it saw waiting at each look."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[int]]] = []

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        self.seen.append((step.num_waiting, [r.id for r in step.waiting]))
        return Gate.SKIP if step.now < 1.0 else Gate.ADMIT

    def wake_at(self, step: Step) -> float | None:
        return 1.0


def test_a_skipped_request_still_counts_as_waiting() -> None:
    policy = CountsTheLine()
    simulate(policy, Jobs([4] * 3, [1] * 3))
    assert policy.seen[:3] == [(3, [0, 1, 2])] * 3


class RejectsSkipped(Policy):
    """Skips request 0, and rejects it while it looks at request 1."""

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        if request.id == 0:
            self.first = request
            return Gate.SKIP
        if self.first.status is not Status.REJECTED:
            step.reject(self.first, "overtaken")
        return Gate.ADMIT


def test_a_skipped_request_can_be_rejected_in_the_same_look() -> None:
    run = simulate(RejectsSkipped(), Jobs([4] * 3, [2] * 3))
    assert [run.requests[i].status for i in range(3)] == ["rejected", "finished", "finished"]
    assert run.admissions() == [1, 2]


class Tight(Policy):
    """Only two tokens from 1 s to 3 s."""

    def budget(self, step: Step) -> int:
        return 2 if 1.0 <= step.now < 3.0 else step.token_budget


def test_a_budget_below_the_decodes_holds_the_last_ones_with_their_blocks() -> None:
    run = simulate(Tight(), Jobs([4] * 4, [6] * 4))
    for iteration in run.iterations[1:3]:
        assert iteration.tokens == {0: 1, 1: 1}
        assert sorted(iteration.blocks) == [0, 1, 2, 3]
        assert len(iteration.blocks[0]) == 2, "its next token needs a second block"
        assert len(iteration.blocks[3]) == 1, "held: keeps the prompt's block, takes none"
        assert iteration.sampled == [0, 1]
    assert run.iterations[3].tokens == dict.fromkeys(range(4), 1)
    assert run.iterations[3].sampled == [0, 1, 2, 3]
    assert [run.requests[i].finished for i in range(4)] == [6.0, 6.0, 8.0, 8.0]
    assert sorted(run.gaps(2)) == [1.0, 1.0, 1.0, 1.0, 3.0]
    assert run.gaps(0) == [1.0] * 5
    assert run.result.requests["max_itl_s"].tolist() == [1.0, 1.0, 3.0, 3.0]
    assert not any(run.requests[i].preemptions for i in range(4))


class NoBudget(Policy):
    """No tokens at all for a while: everyone is held, nothing runs."""

    def budget(self, step: Step) -> int:
        return 0 if 2.0 <= step.now < 7.0 else step.token_budget

    def wake_at(self, step: Step) -> float | None:
        return 7.0


def test_everyone_can_be_held_until_the_policy_wakes() -> None:
    run = simulate(NoBudget(), Jobs([4] * 2, [4] * 2))
    assert [i.start for i in run.iterations] == [0.0, 1.0, 7.0, 8.0]
    assert [i.number for i in run.iterations] == [0, 1, 2, 3]
    assert sorted(run.gaps(0)) == [1.0, 1.0, 6.0]
    assert run.requests[1].finished == 9.0


class Chunks(Policy):
    """Three tokens at a time; request 0 is held at 1 s."""

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        if request.id == 0 and step.now == 1.0:
            return 0
        return min(3, tokens, step.tokens_left)


def test_chunk_cuts_a_prefill_and_zero_holds_it() -> None:
    run = simulate(Chunks(), Jobs([8, 5], [2, 1]))
    tokens = [i.tokens for i in run.iterations]
    assert tokens == [{0: 3, 1: 3}, {1: 2}, {0: 3}, {0: 2}, {0: 1}]
    assert run.iterations[1].blocks[0] == run.iterations[0].blocks[0]
    assert [run.requests[i].first_token for i in range(2)] == [4.0, 2.0]


def test_a_prefill_and_a_decode_that_end_together_are_told_in_running_order() -> None:
    policy = Bookkeeper()
    policy.chunk = lambda request, tokens, step: min(3, tokens)  # type: ignore[method-assign]
    run = simulate(policy, Jobs([8, 3], [1, 3]))
    assert run.iterations[2].sampled == run.iterations[2].finished == [0, 1]
    assert [request for kind, request, _ in policy.events if kind == "finish"] == [0, 1]


class Spare(Policy):
    """Request 1 gets room for a block more at its admission."""

    def reservation(self, request: Request, tokens: int) -> int:
        return tokens + (4 if request.id == 1 else 0)


def test_blocks_go_out_in_running_order_whoever_had_room_to_spare() -> None:
    # 0 takes a block at its first decode; both need the next one at their fifth.
    run = simulate(Spare(), Jobs([4, 4], [9, 9]), blocks=20)
    assert [len(run.iterations[1].blocks[n]) for n in (0, 1)] == [2, 2]
    fifth = run.iterations[5].blocks
    assert [len(fifth[n]) for n in (0, 1)] == [3, 3]
    assert fifth[0][2] < fifth[1][2]


class OldestVictim(Policy):
    """Preempts the first of the running list, whether it is planned already or not."""

    admit_after_preempt = False

    def victim(self, needy: Request, step: Step) -> Request | None:
        return step.running[0]


def test_a_victim_that_was_already_planned_gives_its_token_back() -> None:
    # 4 blocks of 4, three requests of one full block: 1 s asks for three blocks and one is free.
    policy = OldestVictim()
    run = simulate(policy, Jobs([4] * 3, [3] * 3), blocks=4)
    second = run.iterations[1]
    assert second.preempted == [0]
    assert second.tokens == {1: 1, 2: 1}
    assert second.sampled == [1, 2]
    assert [run.requests[i].preemptions for i in range(3)] == [1, 0, 0]
    assert run.requests[0].recomputed_tokens == 4, "its planned token was never computed"
    assert run.requests[0].num_generated_tokens == 3


class RefundWatch(OldestVictim):
    """Writes down the budget that is left when admission would begin."""

    def __init__(self) -> None:
        self.left: list[int] = []

    def schedule(self, step: Step) -> None:
        super().schedule(step)
        self.left.append(step.tokens_left)


def test_the_budget_is_what_the_plan_leaves_after_refunds() -> None:
    policy = RefundWatch()
    run = simulate(policy, Jobs([4] * 3, [3] * 3), blocks=4)
    planned = [sum(i.tokens.values()) for i in run.iterations]
    assert policy.left == [64 - tokens for tokens in planned]


class PrefillEvictsDecode(RefundWatch):
    """Chunks of 4; a prefill that lacks blocks evicts the first decode."""

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        return min(4, tokens, step.tokens_left)


def test_a_prefill_can_evict_a_decode_that_the_set_already_runs() -> None:
    # 0 decodes in its second block, 1 prefills 12 tokens block by block in a cache of four.
    policy = PrefillEvictsDecode()
    run = simulate(policy, Jobs([4, 12], [5, 2]), blocks=4)
    third = next(i for i in run.iterations if i.preempted)
    assert third.preempted == [0]
    assert third.tokens == {1: 4}
    planned = [sum(i.tokens.values()) for i in run.iterations]
    assert policy.left == [64 - tokens for tokens in planned]


class Patient(Policy):
    """Nobody is preempted: who lacks a block waits for one."""

    def victim(self, needy: Request, step: Step) -> Request | None:
        return None


def test_without_a_victim_the_needy_request_waits() -> None:
    run = simulate(Patient(), Jobs([4] * 3, [3] * 3), blocks=5)
    assert run.iterations[1].tokens == {0: 1, 1: 1}
    assert len(run.iterations[1].blocks[2]) == 1
    assert [run.requests[i].finished for i in range(3)] == [3.0, 3.0, 5.0]
    assert not any(i.preempted for i in run.iterations)


def test_a_deadlock_names_the_policy_and_what_runs() -> None:
    with pytest.raises(PolicyError, match=r"deadlock: policy 'Patient' .* 2 requests run"):
        simulate(Patient(), Jobs([4] * 2, [3] * 2), blocks=2)


class Urgent(Policy):
    """Small `priority` first; a waiting request evicts the running one of the largest."""

    def key(self, request: Request) -> Any:
        return request.priority

    def displace(self, request: Request, step: Step) -> Request | None:
        worst = max(step.running, key=lambda r: r.priority, default=None)
        return worst if worst is not None and worst.priority > request.priority else None


def test_displace_gives_a_seat_to_a_waiting_request() -> None:
    jobs = Jobs([4, 4, 4], [5, 5, 2], arrivals=[0, 0, 2], priorities=[3, 2, 1])
    run = simulate(Urgent(), jobs, seats=2)
    third = run.iterations[2]
    assert (third.preempted, third.admitted) == ([0], [2])
    assert third.tokens == {1: 1, 2: 4}
    assert run.requests[2].finished == 4.0
    assert run.requests[0].preemptions == 1
    assert run.requests[0].requeue_s == 2.0


def test_displace_frees_blocks_until_the_request_fits() -> None:
    # `gate` of vllm says STOP for want of blocks: displaced one by one until 2 fits.
    class UrgentVLLM(VLLM, Urgent):
        """Both."""

    jobs = Jobs([4, 4, 12], [4, 4, 2], arrivals=[0, 0, 2], priorities=[3, 2, 1])
    run = simulate(UrgentVLLM(), jobs, blocks=4)
    third = run.iterations[2]
    assert (third.preempted, third.admitted) == ([0, 1], [2])
    assert run.requests[2].finished == 4.0


class Jealous(Policy):
    """Everyone evicts whoever runs."""

    def displace(self, request: Request, step: Step) -> Request | None:
        return step.last_running() if step.now < 5.0 else None


def test_who_was_displaced_does_not_come_back_in_the_same_iteration() -> None:
    run = simulate(Jealous(), Jobs([4] * 3, [3] * 3), seats=1)
    for iteration in run.iterations:
        assert len(set(iteration.preempted)) == len(iteration.preempted)
        assert not set(iteration.preempted) & set(iteration.tokens)


class LatestFirst(Policy):
    """The latest arrival first."""

    def key(self, request: Request) -> Any:
        return -request.arrival


class Eager(LatestFirst):
    """Admits although it preempted."""

    admit_after_preempt = True


def test_admission_after_a_preemption_is_the_policys_choice() -> None:
    jobs = Jobs([4, 4, 4], [6, 6, 1], arrivals=[0, 0, 1])
    eager = simulate(Eager(), jobs, blocks=3).iterations[1]
    assert (eager.preempted, eager.admitted) == ([1], [2])
    assert eager.tokens == {0: 1, 2: 4}
    plain = simulate(LatestFirst(), jobs, blocks=3).iterations[1]
    assert (plain.preempted, plain.admitted) == ([1], [])


class Batches(Policy):
    """Admits at full minutes only."""

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        return Gate.ADMIT if step.now % 60.0 == 0.0 else Gate.STOP

    def wake_at(self, step: Step) -> float | None:
        return (step.now // 60.0 + 1.0) * 60.0


def test_wake_at_is_honoured_and_an_arrival_wakes_earlier() -> None:
    run = simulate(Batches(), Jobs([4] * 3, [1] * 3, arrivals=[5.0, 30.0, 70.0]))
    assert [i.start for i in run.iterations] == [60.0, 120.0]
    assert run.admissions() == [0, 1, 2]


@pytest.mark.parametrize("wake", [0.0, float("nan")])
def test_a_wake_that_is_not_later_is_an_error(wake: float) -> None:
    class Insomniac(Batches):
        def wake_at(self, step: Step) -> float | None:
            return wake

    with pytest.raises(PolicyError, match="is not later"):
        simulate(Insomniac(), Jobs([4], [1], arrivals=[5.0]))


class Sheds(Policy):
    """Takes nobody while two wait; says why only for request 3."""

    def accept(self, request: Request, step: Step) -> bool:
        if request.id == 3:
            step.reject(request, "unlucky number")
            return False
        return step.num_waiting < 2


def test_accept_sheds_load_with_a_reason() -> None:
    run = simulate(Sheds(), Jobs([4] * 5, [1] * 5), seats=1)
    assert [r.status for r in run.requests.values()] == ["finished"] * 2 + ["rejected"] * 3
    assert run.requests[2].reason == "the policy declined it"
    assert run.requests[3].reason == "unlucky number"
    assert run.result.requests["reason"][3] == "unlucky number"


class Confused(Policy):
    """Rejects at arrival and says yes."""

    def accept(self, request: Request, step: Step) -> bool:
        step.reject(request, "no")
        return True


def test_who_was_rejected_at_arrival_does_not_run_whatever_accept_answers() -> None:
    run = simulate(Confused(), Jobs([4], [1]))
    assert run.requests[0].status is Status.REJECTED
    assert not run.iterations


class Drops(Policy):
    """Rejects what has waited for three seconds."""

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        if step.now - request.arrival >= 3.0:
            step.reject(request, "too late")
            return Gate.SKIP
        return Gate.ADMIT


def test_a_policy_may_reject_at_the_gate() -> None:
    run = simulate(Drops(), Jobs([4] * 4, [2, 5, 5, 2], arrivals=[0, 0, 1, 5]), seats=1)
    assert [r.status for r in run.requests.values()] == [
        "finished",
        "finished",
        "rejected",
        "finished",
    ]
    assert run.requests[2].reason == "too late"


def test_rejecting_the_last_waiting_request_ends_the_run() -> None:
    class DropsAll(Policy):
        def schedule(self, step: Step) -> None:
            for request in step.waiting:
                step.reject(request, "closed")

    run = simulate(DropsAll(), Jobs([4] * 2, [1] * 2, arrivals=[0, 3]))
    assert [r.status for r in run.requests.values()] == ["rejected"] * 2


@pytest.mark.parametrize("where", ["accept", "on_arrival", "gate", "schedule", "on_finish"])
def test_a_rejected_request_lets_the_next_one_in_wherever_it_was_rejected(where: str) -> None:
    class Picky(Policy):
        def drop(self, step: Step) -> None:
            for request in step.waiting:
                if request.id == 1:
                    step.reject(request, where)

        def accept(self, request: Request, step: Step) -> bool:
            return not (where == "accept" and request.id == 1)

        def on_arrival(self, request: Request, step: Step) -> None:
            if where == "on_arrival":
                self.drop(step)

        def on_finish(self, request: Request, step: Step) -> None:
            if where == "on_finish":
                self.drop(step)

        def gate(self, request: Request, tokens: int, step: Step) -> Gate:
            if where == "gate" and request.id == 1:
                step.reject(request, where)
                return Gate.SKIP
            return Gate.ADMIT

        def schedule(self, step: Step) -> None:
            if where == "schedule":
                self.drop(step)
            super().schedule(step)

    closed = Jobs([4] * 4, [1] * 4)
    run = simulate(Picky(), closed, seats=1, concurrency=2)
    assert [r.status for r in run.requests.values()] == ["finished", "rejected"] + ["finished"] * 2
    sessions = Jobs([4] * 3, [1] * 3, parents=[-1, -1, 1], thinks=[0, 0, 5.0])
    run = simulate(Picky(), sessions, seats=1)
    assert run.requests[2].status is Status.FINISHED


class Boost(Policy):
    """By a key of its own, which request 2's tenant may change while it waits."""

    def __init__(self) -> None:
        self.boosted: set[int] = set()

    def key(self, request: Request) -> Any:
        return (request.id not in self.boosted, request.id)

    def on_tokens(self, request: Request, tokens: int, step: Step) -> None:
        for waiting in step.waiting:
            if waiting.id == 2 and waiting.id not in self.boosted:
                self.boosted.add(waiting.id)
                step.rekey(waiting)
                step.rekey(request)  # it runs: nothing happens


def test_rekey_moves_a_waiting_request() -> None:
    assert simulate(Boost(), Jobs([4] * 4, [1] * 4), seats=1).admissions() == [0, 2, 1, 3]


class Bookkeeper(Policy):
    """Writes everything down."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, float]] = []
        self.tokens: Counter[int] = Counter()
        self.batches: list[list[int]] = []
        self.last = -1.0

    def on_arrival(self, request: Request, step: Step) -> None:
        self.events.append(("arrival", request.id, step.now))
        assert request.status is Status.WAITING

    def on_admit(self, request: Request, step: Step) -> None:
        self.events.append(("admit", request.id, step.now))
        assert request.status is Status.RUNNING

    def on_preempt(self, request: Request, step: Step) -> None:
        self.events.append(("preempt", request.id, step.now))
        assert request.status is Status.PREEMPTED
        assert request.num_computed_tokens == 0

    def on_tokens(self, request: Request, tokens: int, step: Step) -> None:
        self.tokens[request.id] += tokens
        assert self.tokens[request.id] == request.num_generated_tokens
        assert request.last_token == step.now
        if step.now != self.last:
            self.batches.append([])
            self.last = step.now
        self.batches[-1].append(request.order)

    def on_finish(self, request: Request, step: Step) -> None:
        self.events.append(("finish", request.id, step.now))
        assert request.status is Status.FINISHED
        assert request.finished == step.now


def test_hooks_tell_everything_that_happens_in_order() -> None:
    policy = Bookkeeper()
    outputs = [9, 9, 9, 1, 5]
    jobs = Jobs([4, 6, 8, 4, 4], outputs, arrivals=[0, 0, 1, 2, 20])
    run = simulate(policy, jobs, blocks=8, seats=3)
    kinds = Counter((kind, request) for kind, request, _ in policy.events)
    for request in run.requests.values():
        assert kinds["arrival", request.id] == kinds["finish", request.id] == 1
        assert kinds["preempt", request.id] == request.preemptions
        assert kinds["admit", request.id] == request.preemptions + 1
    assert sum(request.preemptions for request in run.requests.values()) > 0
    assert dict(policy.tokens) == dict(enumerate(outputs))
    assert all(batch == sorted(batch) for batch in policy.batches)
    assert [time for _, _, time in policy.events] == sorted(time for _, _, time in policy.events)
    finished = [request for kind, request, _ in policy.events if kind == "finish"]
    assert finished == [request for i in run.iterations for request in i.finished]


class Curious(Policy):
    """Asks how long a batch takes."""

    answer = 0.0

    def on_arrival(self, request: Request, step: Step) -> None:
        self.answer = step.estimate(BatchShape(decode_requests=3))


def test_step_estimate_answers_with_the_configured_estimator() -> None:
    policy = Curious()
    simulate(policy, Jobs([4], [1]))
    assert policy.answer == 1.0


def test_a_missing_estimator_is_an_error_of_the_policy() -> None:
    from schedsim.memory import PagedKVCache
    from schedsim.scheduler import Scheduler

    scheduler = Scheduler(Curious(), PagedKVCache(4, 4))
    with pytest.raises(PolicyError, match="no estimator"):
        scheduler.add(Request(0, 0.0, 4, 4), 1, 0.0)


@pytest.mark.parametrize("answer", [None, True, "admit"])
def test_a_gate_that_answers_no_gate_is_an_error_and_no_endless_loop(answer: Any) -> None:
    class Vague(Policy):
        def gate(self, request: Request, tokens: int, step: Step) -> Gate:
            return answer  # type: ignore[no-any-return]

    with pytest.raises(PolicyError, match=r"request 0 gets .* from `gate`, must be a Gate"):
        simulate(Vague(), Jobs([4], [1]))


@pytest.mark.parametrize("hook", ["on_arrival", "on_tokens", "on_finish"])
def test_verbs_that_plan_are_refused_while_no_iteration_is_planned(hook: str) -> None:
    """Their effect would be lost: the next iteration begins with an empty plan."""
    policy = Policy()

    def preempts(*arguments: Any) -> None:
        step = arguments[-1]
        for request in step.running:
            step.preempt(request)

    setattr(policy, hook, preempts)
    with pytest.raises(PolicyError, match="while no iteration is planned"):
        simulate(policy, Jobs([4] * 2, [3, 1], arrivals=[0, 1]))


class Careful(Policy):
    """A decode runs only while a block is free."""

    needs_free_block = True


def test_needs_free_block_preempts_although_nobody_lacks_a_slot() -> None:
    jobs = Jobs([5, 5], [3, 3])
    assert not any(i.preempted for i in simulate(Policy(), jobs, blocks=4).iterations)
    run = simulate(Careful(), jobs, blocks=4)
    assert run.iterations[1].preempted == [1]
    assert run.iterations[1].tokens == {0: 1}


def test_needs_free_block_lets_the_last_needy_decode_take_the_last_block() -> None:
    # One block is free; 0 has room in its second, 1 takes the last one, and nobody comes after it.
    jobs = Jobs([5, 4], [3, 3])
    run = simulate(Careful(), jobs, blocks=4)
    assert run.iterations[1].tokens == {0: 1, 1: 1}
    assert run.iterations[1].free_blocks == 0


class ByArrival(ShortestPrompt):
    """Admits by prompt length, runs by arrival."""

    running_order = "arrival"


def test_running_order_says_who_runs_first_and_who_is_last() -> None:
    jobs = Jobs([8, 4], [6, 6])
    by_admission = simulate(ShortestPrompt(), jobs, blocks=4, seats=2)
    by_arrival = simulate(ByArrival(), jobs, blocks=4, seats=2)
    assert by_admission.admissions()[:2] == by_arrival.admissions()[:2] == [1, 0]
    assert by_admission.iterations[0].scheduled[0][0] == 1
    assert by_arrival.iterations[0].scheduled[0][0] == 0
    first = [
        next(i.preempted for i in r.iterations if i.preempted) for r in (by_admission, by_arrival)
    ]
    assert first == [[0], [1]]


def test_a_hook_given_to_an_object_is_called() -> None:
    policy = Policy()
    policy.key = lambda request: -request.id  # type: ignore[method-assign]
    assert simulate(policy, Jobs([4] * 3, [1] * 3), seats=1).admissions() == [2, 1, 0]
