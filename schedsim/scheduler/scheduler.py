"""`Scheduler`: the books of one engine. It asks the policy, emits batches, takes completions."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from schedsim.memory.base import Found, KVCache
from schedsim.policies.base import Policy, Release, overrides, trusted_steady
from schedsim.policies.blame import blame_policy
from schedsim.request import Request, Status
from schedsim.scheduler.batch import Batch, BatchShape, Completion
from schedsim.scheduler.decode_set import DecodeSet
from schedsim.scheduler.step import Step
from schedsim.scheduler.token_log import TokenLog
from schedsim.scheduler.waiting import WaitingQueue

if TYPE_CHECKING:
    from schedsim.predictors import Predictor

_by_order = attrgetter("order")


class Scheduler:
    """The iteration-level scheduler that both backends drive.

    A backend calls `add` for each arrival, then `schedule` for a batch, runs it, and tells
    `complete` when it ended. With `decision_lag` 1 it calls `schedule` once more in between, so
    that a decision is made while the batch before it is in flight. What a batch computes is booked
    when it is decided, what it emits when it ended.

    A running request is in exactly one of five places: the decode set, `prefilling` (known tokens
    not all computed), `held` (decodes, but got no token lately), `ending` (its last token is in
    flight) or `padding` (finished, keeps its seat until its batch ends); `num_running` counts them,
    the seats taken. Who is rejected, at arrival or by a verb later, is also put into `rejected`,
    which the backend empties. True output lengths stay in here.

    Source of the overlapped decisions: vLLM 0.33.0, `vllm/v1/core/sched/async_scheduler.py` and
    `step_with_batch_queue` in `vllm/v1/engine/core.py`. An end at the output limit is known in
    advance and costs nothing; any other is seen one decision late, when the request is planned once
    more: that token is thrown away.
    """

    def __init__(
        self,
        policy: Policy,
        kv_cache: KVCache,
        *,
        max_seqs: int = 256,
        token_budget: int | None = None,
        max_model_len: int = 8192,
        decision_lag: int = 0,
        predictor: "Predictor | None" = None,
        memory_predictor: "Predictor | None" = None,
        estimator: Callable[[BatchShape], float] | None = None,
    ) -> None:
        """`token_budget` None takes the policy's default; `estimator` answers `step.estimate`.

        `memory_predictor` says what memory is reserved by, if not by what `predictor` says.
        """
        assert decision_lag in (0, 1), "no engine decides more than one iteration ahead"
        self.policy = policy
        self.kv_cache = kv_cache
        self.max_seqs = max_seqs
        self.max_model_len = max_model_len
        self.token_budget = token_budget or 0
        self.decision_lag = decision_lag
        self.predictor = predictor
        self.memory_predictor = memory_predictor
        self.estimator = estimator
        kv_cache.decodes_ahead = decision_lag > 0
        self.token_log = TokenLog()
        self.decode_set = DecodeSet(self.token_log.decode_ends)
        self.prefilling: list[Request] = []
        self.held: list[Request] = []
        self.ending: list[Request] = []
        self.padding: list[Request] = []
        self.num_running = 0
        self.rejected: list[Request] = []
        self.queue = WaitingQueue(
            policy.key if overrides(policy, "key") else None,
            policy.group if overrides(policy, "group") else None,
            policy.group_key if overrides(policy, "group_key") else None,
        )
        self.stored_tokens = 0
        self.num_unswapped = 0
        self.last_completion = Completion(Batch(), [])
        self.has_prefix_cache = kv_cache.has_prefix_cache
        self.moves_blocks = kv_cache.moves_blocks
        self.needs_free_block = policy.needs_free_block and not kv_cache.reserves_growth
        self.has_chunk = overrides(policy, "chunk")
        self.has_gate = overrides(policy, "gate")
        self.has_reservation = overrides(policy, "reservation")
        self.has_mode = overrides(policy, "mode")
        self.has_on_admit = overrides(policy, "on_admit")
        self.has_on_preempt = overrides(policy, "on_preempt")
        self._has_accept = overrides(policy, "accept")
        self._has_budget = overrides(policy, "budget")
        self._has_release = overrides(policy, "release")
        self._has_on_output = overrides(policy, "on_tokens") or overrides(policy, "on_output")
        self._has_on_finish = overrides(policy, "on_finish")
        self._is_steady = trusted_steady(policy)
        self.runs_to_the_end = self._is_steady and policy.runs_to_the_end
        self._learners = [p for p in (predictor, memory_predictor) if p is not None and p.learns]
        self._targets: dict[int, int] = {}
        self._finishing: dict[int, list[Request]] = {}
        self._owed: list[Request] = []
        self._in_flight: deque[Batch] = deque()
        self._next_order = 0
        self._step = Step(self)
        if token_budget is None:
            self.token_budget = self._step.token_budget = self._default_token_budget()

    # ---- reads

    @property
    def is_in_flight(self) -> bool:
        """Whether a batch was decided and has not ended."""
        return bool(self._in_flight)

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs."""
        return len(self.queue) > 0 or self.num_running > 0

    @property
    def decoding(self) -> list[Request]:
        """Running requests whose prefill is done, in running order; O(n)."""
        return sorted(chain(self.decode_set.members, self.held), key=_by_order)

    @property
    def running(self) -> list[Request]:
        """Unfinished running requests in running order; O(n)."""
        groups = (self.decode_set.members, self.held, self.prefilling, self.ending)
        return sorted(chain(*groups), key=_by_order)  # of sorted parts: fast

    @property
    def waiting(self) -> list[Request]:
        """Waiting requests in queue order; O(n log n).

        Raises:
            PolicyError: the policy's `group` or `group_key` raised.
        """
        try:
            return self.queue.ordered()
        except (Exception, SystemExit) as error:  # as in `add`
            self._blame_policy(error, "when the waiting line was listed")

    # ---- what a backend calls

    def add(self, request: Request, output_tokens: int, now: float) -> bool:
        """Take an arriving request that will emit `output_tokens` tokens; False if it is rejected.

        Rejected is what can never run, and what the policy refuses; `request.reason` says why.

        Raises:
            PolicyError: a hook of the policy raised.
        """
        if self.predictor is not None:
            request.predicted_output = self.predictor.predict(request, output_tokens)
        if self.memory_predictor is not None:
            request.foreseen_output = self.memory_predictor.predict(request, output_tokens)
        step = self._step
        step.now = now
        try:
            problem = self._why_never(request, output_tokens)
            if not problem and self._has_accept and not self.policy.accept(request, step):
                problem = "the policy declined it"
            if request.status is Status.REJECTED:
                return False
            if problem:
                self.refuse(request, problem)
                return False
            self._targets[request.id] = output_tokens
            request._waiting_since = now
            self.queue.add(request)
            self.policy.on_arrival(request, step)
        except (Exception, SystemExit) as error:  # a policy is foreign code
            self._blame_policy(error, f"at the arrival of request {request.id}")
        return request in self.queue

    def schedule(self, now: float) -> Batch:
        """Decide the next iteration; the batch is empty if the policy runs nothing.

        Raises:
            PolicyError: the policy raised or asked for something impossible.
        """
        assert len(self._in_flight) <= self.decision_lag, "a batch is decided too far ahead"
        step = self._step
        if self._in_flight:
            self._set_ending_apart()
        step.begin(now)
        try:
            if self._has_budget:
                step.tokens_left = step.whole(self.policy.budget(step), None, "`budget`")
            self.policy.schedule(step)
        except (Exception, SystemExit) as error:  # as in `add`
            self._blame_policy(error, f"in iteration {step.iteration}")
        batch = step.seal()
        self._book(batch)
        if batch.prefills or batch.runs_decodes:
            self._in_flight.append(batch)
        return batch

    def complete(self, batch: Batch, end: float) -> Completion:
        """Book what the oldest batch in flight, which ran until `end`, emitted.

        Raises:
            PolicyError: a hook of the policy raised; the books are whole, `last_completion` tells.
        """
        if self._in_flight and self._in_flight[0] is batch:
            self._in_flight.popleft()
        else:
            assert batch.is_empty, "batches end in the order of their decisions"
        finished: list[Request] = []
        outside = batch.first_tokens
        if batch.runs_decodes:
            self.decode_set.end(end)
            due = self._finishing.pop(self.decode_set.num_ended, None)
            if due is not None:
                finished += due
                for request in due:
                    self._leave_at_the_end(request)
            if self._owed:
                outside = [*self._owed, *outside]
                self._owed.clear()
        for request in outside:
            if self._emit(request, end):
                finished.append(request)
        if len(finished) > 1:
            finished.sort(key=_by_order)
        self.last_completion = completion = Completion(batch, finished)
        if finished or self._has_on_output or (outside and self.decision_lag):
            try:
                self._close(completion, outside, end)
            except (Exception, SystemExit) as error:  # as in `add`
                self._close_unasked(finished, end)
                self._blame_policy(error, f"after iteration {batch.iteration}")
        if self.padding and len(self.padding) == self.num_running:
            for request in self.padding:
                self._give_back(request)
            self.padding.clear()
            self.num_running = 0
        return completion

    def steady_after(self, batch: Batch) -> int:
        """How many iterations after `batch`, the last that ended, are known to run what it ran.

        As long as nothing arrives and no decode lacks memory: the policy says that it decides the
        same, and nobody finishes in them. `repeat` books them.

        Raises:
            PolicyError: `steady` raised, or gave no number.
        """
        assert not self._in_flight, "what follows a batch in flight is decided already"
        finishing = self._finishing
        next_end = self.decode_set.counter + 1
        if (
            not self._is_steady
            or next_end in finishing
            or not batch.runs_decodes
            or batch.prefills
            or batch.preempted
            or batch.transfers
            or self.held
            or self.prefilling
        ):
            return 0
        members = len(self.decode_set.members)
        if members != batch.decode_requests and not (members and self.runs_to_the_end):
            return 0
        step = self._step
        try:
            promised = step.whole(self.policy.steady(step), None, "`steady`")
        except (Exception, SystemExit) as error:  # as in `add`
            self._blame_policy(error, f"in `steady` after iteration {batch.iteration}")
        return min(promised - 1, min(finishing) - next_end)

    def steady_batch(self) -> Batch:
        """The batch that `repeat` and `skip` decide: all who decode, and what pads them."""
        number = len(self.decode_set.members)
        batch = Batch(decode_requests=number, sampled=number, runs_decodes=True)
        self.measure(batch)
        self._step.seal_padding(batch)
        return batch

    def repeat(self, batch: Batch) -> bool:
        """Decide once more what `batch` decided, with its new sizes; False, and no change, if not.

        It cannot be where a block is missing or blocks would move.
        """
        if not self.can_decode_all() or (self.moves_blocks and self.kv_cache.needy):
            return False
        self.kv_cache.grow_all()
        self.measure(batch)
        self._book(batch)
        return True

    def measure(self, batch: Batch) -> None:
        """Tell a `steady_batch` how long the contexts of who decodes have become."""
        batch.decode_context = self.decode_set.context
        batch.longest_context = self.decode_set.longest_context

    @property
    def quiet_iterations(self) -> int:
        """How many iterations `skip` may book at once: no block is needed in any of them."""
        quiet = self.kv_cache.quiet_iterations
        return quiet if quiet > 0 and self.can_decode_all() else 0

    def skip(self, batch: Batch, ends: npt.NDArray[np.float64]) -> None:
        """Decide once more what `batch` decided, as often as `ends` says, and end them then.

        Only within `steady_after` and `quiet_iterations`.
        """
        iterations = len(ends)
        self.stored_tokens += iterations * batch.decode_requests
        self.kv_cache.skip(iterations)
        self.decode_set.skip(iterations)
        self.decode_set.end_all(ends)

    def end_repeats(self, iterations: int, end: float) -> None:
        """Tell the policy of `iterations` repeated ones, the last of which ended at `end`.

        Raises:
            PolicyError: a hook raised.
        """
        step, policy = self._step, self.policy
        step.iteration += iterations
        step.now = end
        if not (self._has_on_output and iterations):
            return
        try:
            policy.on_output(self.decode_set.members, iterations, step)
        except (Exception, SystemExit) as error:  # as in `add`
            self._blame_policy(error, f"after iteration {step.iteration - 1}")

    def wake_at(self) -> float | None:
        """When the policy wants to be asked again after an empty batch.

        Raises:
            PolicyError: it raised, or named no time.
        """
        try:
            wake = self.policy.wake_at(self._step)
            if wake is not None and math.isinf(wake):
                raise self._step.error(None, f"`wake_at` says {wake!r}, must be a time or None")
            return wake
        except (Exception, SystemExit) as error:  # as in `add`
            self._blame_policy(error, f"after iteration {self._step.iteration}")

    def finish_log(self) -> TokenLog:
        """The token log with what is still in flight written down; at the end of a run.

        Members of the decode set leave it, so that their progress and their spans are real; asked
        once more there are none left. What is in flight never arrives.
        """
        for request in list(self.decode_set.members):
            self.hold(request)
        return self.token_log

    def check(self) -> None:
        """Assert every invariant of the books; O(everything)."""
        self.decode_set.check()
        self.kv_cache.check()
        for group in (self.prefilling, self.held, self.ending, self.padding):
            orders = [request.order for request in group]
            assert orders == sorted(set(orders)), "running requests are out of order"
        running = self.running
        seats = len(running) + len(self.padding)
        assert self.num_running == seats, f"{self.num_running} are said to run, {seats} do"
        assert self.num_running <= self.max_seqs, "more requests run than there are seats"
        assert len({request.id for request in running}) == len(running), "a request runs twice"
        for request in running + self.padding:
            held = len(self.kv_cache.block_table(request))
            need = self.kv_cache.blocks_for(request.num_computed_tokens)
            assert held >= need, f"request {request.id} holds {held} of {need} blocks"
        stored = self._count_stored_tokens()
        assert stored == self.stored_tokens, f"{stored} tokens stored, {self.stored_tokens} booked"
        for request in running:
            assert request.status is Status.RUNNING, f"request {request.id} is {request.status}"
            target = self._targets[request.id]
            assert request.num_generated_tokens < target, f"request {request.id} outlives its end"
        self.queue.check()
        for request in self.queue.ordered():
            assert not self.kv_cache.block_table(request), f"request {request.id} waits with blocks"
            kept = request.num_computed_tokens
            assert (kept > 0) == request.is_swapped, (
                f"request {request.id} waits with {kept} tokens"
            )
        swapped = sum(request.is_swapped for request in self.queue.ordered())
        assert swapped == self.kv_cache.num_swapped, "the host tier keeps who does not wait"
        due = [request.id for requests in self._finishing.values() for request in requests]
        members = [r.id for r in self.decode_set.members if self._last_iteration(r) is not None]
        assert sorted(due) == sorted(members), "the calendar of finishes has lost a member"
        assert len(self._in_flight) <= self.decision_lag + 1, "too many batches are in flight"
        if not self._in_flight:
            assert not self._owed, "a token is awaited of nothing in flight"
            assert not self.ending, "a last token is awaited of nothing in flight"

    # ---- what the step's verbs call

    def can_decode_all(self) -> bool:
        """Whether no member of the decode set can lack a block."""
        kv_cache = self.kv_cache
        if not self.needs_free_block:
            return kv_cache.can_grow_all()
        return not self.decode_set.members or len(kv_cache.needy) < kv_cache.free_blocks

    def start(self, request: Request, now: float) -> None:
        """Move a waiting request to the running list."""
        self.queue.remove(request)
        self.num_running += 1
        request.status = Status.RUNNING
        if request.admitted is None:
            request.admitted = now
        else:
            request.requeue_s += now - request._waiting_since
        if self.policy.running_order == "arrival":
            request.order = request.id
        else:
            request.order = self._next_order
            self._next_order += 1
        insort(self.prefilling, request, key=_by_order)

    def find_prefix(self, request: Request) -> int:
        """Tokens in the cache that a waiting request would begin with."""
        return self.kv_cache.find(request).blocks * self.kv_cache.block_size

    def take_prefix(self, request: Request, found: Found) -> None:
        """Book what a request that is admitted found in the cache.

        Of what it had before it was preempted, that need not be computed again.
        """
        block_size = self.kv_cache.block_size
        request._computed = tokens = found.blocks * block_size
        self.stored_tokens += found.idle * block_size
        regained = min(tokens, request._reached)
        request.recomputed_tokens -= regained
        request.cached_tokens += tokens - regained
        request._reached = max(tokens, request._reached)

    def stop(self, request: Request, now: float, swapped: bool) -> None:
        """Move a running request back to the waiting line, its blocks released.

        `swapped`: what is computed of it is kept in the host tier.
        """
        if request._decode_set is not None:
            self._leave_calendar(request)
            shared = self.kv_cache.release(request)
            self._leave_decode_set(request)
        else:
            for group in (self.held, self.prefilling, self.ending):
                if request in group:
                    group.remove(request)
            shared = self.kv_cache.release(request)
        self.num_running -= 1
        computed = request._computed
        self.stored_tokens -= computed - shared * self.kv_cache.block_size
        request._reached = max(computed, request._reached)
        request.is_swapped = swapped
        if not swapped:
            request.recomputed_tokens += computed
            request._computed = 0
        request.preemptions += 1
        request.status = Status.PREEMPTED
        request._waiting_since = now
        self.queue.add(request)

    def hold(self, request: Request) -> None:
        """Take a decode out of the set for an iteration; it keeps its blocks."""
        self._leave_calendar(request)
        self.kv_cache.leave(request)
        self._leave_decode_set(request)
        insort(self.held, request, key=_by_order)

    def rejoin(self, request: Request) -> None:
        """Put a held decode back into the set."""
        self.held.remove(request)
        self._join_decode_set(request)

    def refuse(self, request: Request, reason: str) -> None:
        """Mark a request as rejected."""
        if request.is_swapped:
            self.kv_cache.forget_swapped(request)
            request.is_swapped = False
            request.recomputed_tokens += request._computed
            request._computed = 0
        if request.status is Status.PREEMPTED and self._in_flight:
            self._throw_away(request)
        request.status = Status.REJECTED
        request.reason = reason
        self._targets.pop(request.id, None)
        self.rejected.append(request)

    # ---- inside

    def _count_stored_tokens(self) -> int:
        """Slots that hold a token, those of a shared block once."""
        stored: dict[int, int] = {}
        block_size = self.kv_cache.block_size
        for request in self.running + self.padding:
            left = request.num_computed_tokens
            for block in self.kv_cache.block_table(request):
                # A block found before its first user has filled it: the user knows how far it is.
                tokens = max(0, min(left, block_size))
                stored[block] = min(stored.get(block, tokens), tokens)
                left -= block_size
        return sum(stored.values())

    def _why_never(self, request: Request, output_tokens: int) -> str:
        """Why a request can never run to its end here; empty if it can."""
        total = request.prompt_tokens + output_tokens
        if total > self.max_model_len:
            return f"{total} tokens exceed the context of {self.max_model_len} (max_model_len)"
        kv_cache = self.kv_cache
        need = kv_cache.blocks_to_finish(request, total - 1)
        kept_free = self.policy.watermark_blocks(kv_cache.total_blocks)
        if need + kept_free > kv_cache.total_blocks:
            spare = f" less the watermark of {kept_free}" if kept_free else ""
            return f"needs {need} blocks, the cache has {kv_cache.total_blocks}{spare}"
        return ""

    def _set_ending_apart(self) -> None:
        """Take out of the decode set who emits its last token, as is known, in flight."""
        decode_set = self.decode_set
        if decode_set.counter == decode_set.num_ended:
            return
        for request in list(self._finishing.get(decode_set.counter, ())):
            if self._end_is_known(request):
                self._leave_calendar(request)
                self.kv_cache.leave(request)
                self._leave_decode_set(request)
                insort(self.ending, request, key=_by_order)

    def _end_is_known(self, request: Request) -> bool:
        """Whether a request ends where its output limit or the context does, or before that."""
        limit = min(request.output_limit, self.max_model_len - request.prompt_tokens)
        return self._targets[request.id] == limit

    def _book(self, batch: Batch) -> None:
        """Book what a batch, just decided, computes."""
        self.stored_tokens += batch.prefill_tokens + batch.decode_requests
        if batch.runs_decodes:
            self.decode_set.advance()
            self.kv_cache.advance()
        for request, tokens, _ in batch.prefills:
            request._computed += tokens
        for request in batch.first_tokens:
            self.prefilling.remove(request)
            is_last = request._generated + 1 == self._targets[request.id]
            if is_last and (not self.decision_lag or self._end_is_known(request)):
                insort(self.ending, request, key=_by_order)
            else:
                self._join_decode_set(request)
        if self.has_prefix_cache:
            self.stored_tokens -= self.kv_cache.commit() * self.kv_cache.block_size

    def _emit(self, request: Request, end: float) -> bool:
        """Book a token that does not come by the decode set's counter; True if it is the last."""
        request._generated += 1
        if request.first_token is None:
            request.first_token = end
        elif request._last_token is not None:
            self.token_log.add_gap(request.id, end - request._last_token)
        request._last_token = end
        is_last = request._generated == self._targets[request.id]
        if request._decode_set is not None:
            if is_last:
                self._leave_at_the_end(request)
        elif request.status is Status.RUNNING:
            if self.has_prefix_cache:
                self.kv_cache.settle(request)
            if is_last:
                (self.ending if request in self.ending else self.held).remove(request)
                self.num_running -= 1
        return is_last

    def _leave_at_the_end(self, request: Request) -> None:
        """Take a finished request out of the decode set; what it has in flight is thrown away."""
        self.kv_cache.leave(request)
        self.num_running -= 1
        if self._leave_decode_set(request, finishes=True):
            following = self._in_flight[0]
            following.discarded = [*following.discarded, request]

    def _throw_away(self, request: Request) -> None:
        """A token of a request that is refused may be in flight: nobody gets it."""
        in_flight = self._in_flight[0]
        if request in self._owed:
            self._owed.remove(request)
        elif request in in_flight.first_tokens:
            in_flight.first_tokens = [r for r in in_flight.first_tokens if r is not request]
        else:
            return
        in_flight.discarded = [*in_flight.discarded, request]

    def _last_iteration(self, request: Request) -> int | None:
        """The iteration of the decode set that brings the last token of a member.

        None if its prefill brings it, which is in flight and not known to be the end.
        """
        planned = request.num_computed_tokens + 1 - request.prompt_tokens
        last = self.decode_set.counter + self._targets[request.id] - planned
        return last if last >= request._span_start else None

    def _join_decode_set(self, request: Request) -> None:
        self.decode_set.join(request)
        self.kv_cache.join(request)
        last = self._last_iteration(request)
        if last is None:
            return
        due = self._finishing.get(last)
        if due is None:
            self._finishing[last] = [request]
        else:
            insort(due, request, key=_by_order)

    def _leave_calendar(self, request: Request) -> None:
        last = self._last_iteration(request)
        if last is None:
            return
        due = self._finishing[last]
        del due[bisect_left(due, request.order, key=_by_order)]
        if not due:
            del self._finishing[last]

    def _leave_decode_set(self, request: Request, finishes: bool = False) -> bool:
        """End the membership and write down the gaps between its tokens.

        True if a token is in flight; of who does not finish it is still to come.
        """
        decode_set, log = self.decode_set, self.token_log
        first, before, last = request._span_start, request._last_token, decode_set.num_ended
        is_in_flight = decode_set.leave(request)
        if last >= first:
            assert before is not None, "a decode without a first token"
            log.add_gap(request.id, log.decode_ends[first] - before)
            if last > first:
                log.add_span(request.id, first + 1, last)
        if is_in_flight and not finishes:
            self._owed.append(request)
        return is_in_flight

    def _close(self, completion: Completion, outside: Sequence[Request], end: float) -> None:
        """Tell the policy about tokens, then release what finished.

        Those `outside` the decode set got a token; who of them waits may have another key now.
        """
        step, policy = self._step, self.policy
        step.now = end
        if self.decision_lag:
            for request in outside:
                if request in self.queue:
                    self.queue.rekey(request)
        if self._has_on_output:
            policy.on_output(completion.sampled(), 1, step)
        for request in completion.finished:
            request.status = Status.FINISHED
            request.finished = end
            for learner in self._learners:
                learner.observe(request, self._targets[request.id])
            asks = self._has_release and request not in self.queue
            if asks and self._release(request) is Release.BATCH_END:
                insort(self.padding, request, key=_by_order)
                self.num_running += 1
            else:
                self._leave(request, end)
            del self._targets[request.id]
            if self._has_on_finish:
                policy.on_finish(request, step)

    def _close_unasked(self, finished: list[Request], end: float) -> None:
        """Release who finished and was not yet released when a hook raised."""
        for request in finished:
            if request.id in self._targets:
                request.status = Status.FINISHED
                request.finished = end
                self._leave(request, end)
                del self._targets[request.id]

    def _leave(self, request: Request, end: float) -> None:
        """A finished request gives back its blocks or its place in line."""
        if request in self.queue:
            self._leave_queue(request, end)
        else:
            self._give_back(request)

    def _release(self, request: Request) -> Release:
        release = self.policy.release(request)
        if not isinstance(release, Release):
            raise self._step.error(request, f"gets {release!r} from `release`, must be a Release")
        return release

    def _leave_queue(self, request: Request, end: float) -> None:
        """A preempted request turns out to have ended with what was in flight of it."""
        self.queue.remove(request)
        request.requeue_s += end - request._waiting_since
        if request.is_swapped:
            self.kv_cache.forget_swapped(request)
            request.is_swapped = False
        else:
            # Booked when it was preempted, but nothing of it will be computed again.
            request.recomputed_tokens -= request.num_known_tokens - 1

    def _give_back(self, request: Request) -> None:
        kv_cache = self.kv_cache
        self.stored_tokens -= request._computed - kv_cache.release(request) * kv_cache.block_size

    def _default_token_budget(self) -> int:
        step = self._step
        try:
            budget = self.policy.default_token_budget(self.max_model_len)
            return step.whole(budget, None, "`default_token_budget`")
        except (Exception, SystemExit) as error:  # as in `add`
            self._blame_policy(error, "in `default_token_budget`")

    def _blame_policy(self, error: Exception | SystemExit, when: str) -> NoReturn:
        blame_policy(self.policy.name, error, when)
