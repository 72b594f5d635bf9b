"""`SteadyWitness`: holds a policy to what its `steady` promised."""

from schedsim.policies.base import Policy, overrides
from schedsim.scheduler import Batch, Completion, Scheduler


class SteadyWitness:
    """Asks the policy's `steady` and holds it to what it promised."""

    def __init__(self, policy: Policy, lag: int) -> None:
        self._policy = policy
        self._is_asked = overrides(policy, "steady")
        self._lag = lag
        self._promised: list[int] = []
        self._made_at = self._until = -1
        self._released = 0
        self._end = 0.0

    def decided(self, scheduler: Scheduler, batch: Batch, released: int) -> str:
        """How this decision breaks a promise, empty if it does not; then ask for the next one."""
        if not self._is_asked:
            return ""
        only_decodes = batch.runs_decodes and not (batch.prefills or batch.preempted)
        runs = [entry.request.id for entry in batch.expand()] if only_decodes else []
        # Whose last token is known to be in flight has finished for the policy.
        ending = {request.id for request in scheduler.ending}
        if self._policy.runs_to_the_end:
            self._go_on_without(ending)
        elif released != self._released or ending.intersection(self._promised):
            self._until = -1
        if self._until >= batch.iteration:
            promise = (
                f"steady promised {self._until - self._made_at + 1} at iteration {self._made_at}, "
                "and nothing arrived, finished or lacked memory since"
            )
            if runs != self._promised:
                return f"decides otherwise, {promise}"
            if not self._lag and batch.decided_at > self._end:
                return f"ran nothing before, {promise}"
        self._released, self._promised = released, runs
        until = batch.iteration - 1
        if only_decodes:
            until += self._policy.steady(scheduler._step)
        if until > self._until:
            self._made_at, self._until = batch.iteration, until
        self._end_if_short(scheduler)
        return ""

    def completed(self, scheduler: Scheduler, completion: Completion, end: float) -> None:
        """A finish ends a promise."""
        self._end = end
        finished = {request.id for request in completion.finished}
        if self._policy.runs_to_the_end:
            self._go_on_without(finished)
        elif finished:
            self._until = -1
        self._end_if_short(scheduler)

    def _go_on_without(self, gone: set[int]) -> None:
        """The promise holds for who is left, whoever arrives; it ends if nobody is."""
        self._promised = [number for number in self._promised if number not in gone]
        if not self._promised:
            self._until = -1

    def _end_if_short(self, scheduler: Scheduler) -> None:
        """Memory that is short at the next decision ends a promise."""
        kv_cache = scheduler.kv_cache
        is_short = scheduler.needs_free_block and len(kv_cache.needy) >= kv_cache.free_blocks
        if is_short or not kv_cache.can_grow_all():
            self._until = -1
