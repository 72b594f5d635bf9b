"""Policies with one bug each. Where the verbs forbid a bug, it writes to private state."""

from collections.abc import Hashable
from typing import Any, ClassVar

from schedsim.policies import VLLM, Gate, Policy, PreemptMode, Static
from schedsim.policies.base import UNTIL_AN_EVENT
from schedsim.request import Request
from schedsim.scheduler import Step


class OverBudget(VLLM):
    def schedule(self, step: Step) -> None:
        step.tokens_left += 40
        super().schedule(step)


class OverSeats(VLLM):
    def schedule(self, step: Step) -> None:
        step._scheduler.max_seqs += 1
        super().schedule(step)


class LatestFirst(VLLM):
    def key(self, request: Request) -> Any:
        return -request.arrival, -request.id


class NeverAdmitsATenant(VLLM):
    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        return Gate.SKIP if request.tenant == 1 else super().gate(request, tokens, step)


class LosesThePreempted(VLLM):
    def on_preempt(self, request: Request, step: Step) -> None:
        step._scheduler.queue.remove(request)


class RejectsThePreempted(VLLM):
    def schedule(self, step: Step) -> None:
        super().schedule(step)
        for request in step.preempted:
            step.reject(request, "no luck")


class ShortestTrueOutputFirst(VLLM):
    def schedule(self, step: Step) -> None:
        step.run_running()
        targets = step._scheduler._targets
        for request in sorted(step.waiting, key=lambda request: targets[request.id]):
            if step.seats and step.tokens_left > 0 and not step.preempted:
                step.admit(request, min(request.num_known_tokens, step.tokens_left))


class WritesTheTrueLength(VLLM):
    def on_arrival(self, request: Request, step: Step) -> None:
        request.predicted_output = float(step._scheduler._targets[request.id])


class LyingSteady(VLLM):
    """Holds every other request in every other iteration, and says that it does not."""

    def schedule(self, step: Step) -> None:
        running = step.running
        chosen = running[step.iteration % 2 :: 2] if len(running) > 1 else running
        for request in chosen:
            tokens = min(request.num_tokens_left, step.tokens_left)
            if tokens > 0:
                step.run(request, tokens)
        if not step.preempted:
            step.admit_waiting()

    def steady(self, step: Step) -> int:
        return 5


class AdmitsAlthoughSteady(VLLM):
    """Admits only in every fourth iteration, and forgets who waits."""

    def schedule(self, step: Step) -> None:
        step.run_running()
        if step.iteration % 4 == 0 or not step.running:
            step.admit_waiting()

    def steady(self, step: Step) -> int:
        return 8


class JoinsARunningBatch(Static):
    """Says that a batch runs to its end, and lets more in."""

    def schedule(self, step: Step) -> None:
        step.run_decodes()
        step.run_prefills()
        step.admit_waiting()

    def steady(self, step: Step) -> int:
        return UNTIL_AN_EVENT


class OrdersByParityOfId(VLLM):
    def key(self, request: Request) -> Any:
        return request.id % 2, request.arrival


class RemembersOtherRuns(VLLM):
    runs: ClassVar[list[int]] = []

    def schedule(self, step: Step) -> None:
        if step.iteration == 0:
            self.runs.append(1)
        if len(self.runs) % 2 and step.first_waiting is not None and step.seats:
            step.admit(step.first_waiting, 1)
        super().schedule(step)


class PreemptsForEver(VLLM):
    def schedule(self, step: Step) -> None:
        for request in step.running:
            step.preempt(request)
        for request in step.waiting[: step.seats]:
            if step.tokens_left > 0:
                step.admit(request, 1)


class NeverGoesOn(VLLM):
    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        return Gate.STOP if step.iteration > 3 else super().gate(request, tokens, step)


class SkipsRecompute(VLLM):
    """Says that the tokens of a preempted request are still computed."""

    def on_admit(self, request: Request, step: Step) -> None:
        if request.preemptions and request.num_known_tokens > 2:
            request._computed += 1


class FinishesEarly(VLLM):
    def on_arrival(self, request: Request, step: Step) -> None:
        step._scheduler._targets[request.id] = 1


class ChangesTheBlockTable(VLLM):
    def schedule(self, step: Step) -> None:
        super().schedule(step)
        tables: Any = step._scheduler.kv_cache
        for request in step.running:
            tables._tables[request.id].reverse()


class FairByTenant(Policy):
    """No bug: the tenant that was served least comes first."""

    def __init__(self) -> None:
        self.served: dict[int, int] = {}

    def group(self, request: Request) -> Hashable:
        return request.tenant

    def group_key(self, group: int) -> Any:
        return self.served.get(group, 0), group

    def on_admit(self, request: Request, step: Step) -> None:
        self.served[request.tenant] = self.served.get(request.tenant, 0) + request.prompt_tokens

    def on_tokens(self, request: Request, tokens: int, step: Step) -> None:
        self.served[request.tenant] = self.served.get(request.tenant, 0) + 2 * tokens


class SwapsAll(VLLM):
    """No bug: preempts by swap."""

    def mode(self, victim: Request, step: Step) -> PreemptMode:
        return PreemptMode.SWAP


class TrulySteady(VLLM):
    """No bug: while nobody waits, decodes go on as they are if the budget serves them all."""

    def steady(self, step: Step) -> int:
        return 1 if step.num_waiting or step.num_running > step.token_budget else 50
