"""`Watch`: sees every decision of a run, keeps books of its own, and says what breaks a rule."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any

from schedsim.backend import Backend
from schedsim.config import RunSettings
from schedsim.content import Content
from schedsim.memory.base import KVCache
from schedsim.policies.base import Policy, overrides
from schedsim.request import Request, Status
from schedsim.results.request_log import ReleasedRequest
from schedsim.scheduler import Batch, Completion, Scheduler
from schedsim.scheduler.batch import TransferKind
from schedsim.testing.claims import Claim, Decision
from schedsim.testing.paper import VOCAB, Paper
from schedsim.testing.record import Entry, IterationRecord
from schedsim.testing.steady import SteadyWitness
from schedsim.testing.violations import PolicyViolation
from schedsim.traces.trace import Trace

_VISIBLE = (
    *(field.name for field in fields(Request) if not field.name.startswith("_")),
    "num_computed_tokens",
    "num_generated_tokens",
    "last_token",
)
"""What stands on a request; private books know, in flight, whether a token is the last."""


class Beyond(Enum):
    """What a policy may do beyond the rules, where that is its nature."""

    LONE_PREFILL = "a prefill longer than the budget runs alone"
    LATE_REJECTIONS = "a request that was taken may be rejected later"


class Watch:
    """Observes one run and holds it against all rules; the first violation stops the run.

    Its books follow from the batches alone: tokens computed and emitted by request, who is where.
    `rows` maps request ids to rows of the trace, which is how everything is told.
    """

    def __init__(
        self,
        trace: Trace,
        settings: RunSettings,
        policy: Policy,
        content: Content,
        *,
        claims: Sequence[Claim],
        beyond: Collection[Beyond],
        rows: dict[int, int],
        block_size: int,
        strict: bool,
    ) -> None:
        """`rows` are the requests that are watched; `content` goes by their ids.

        One that is not `strict` only records.
        """
        self._strict = strict
        self.records: list[IterationRecord] = []
        self.violation: PolicyViolation | None = None
        self.computed_tokens = 0
        self._trace, self._settings, self._policy = trace, settings, policy
        self._content = content
        self._beyond = beyond
        self._rows = rows
        self._lag = settings.decision_lag or 0
        self._witnesses = [(claim, claim.witness()) for claim in claims]
        self._paper = Paper(block_size)
        self._by_iteration: dict[int, IterationRecord] = {}
        self._said: dict[int, list[int]] = {}
        self._accepted: dict[int, Request] = {}
        self._computed: dict[int, int] = {}
        self._emitted: dict[int, int] = {}
        self._finished: set[int] = set()
        self._discarded = 0
        self._futile = 0
        self._max_futile = int(trace.prompt_tokens.sum() + trace.output_tokens.sum())
        self._steady = SteadyWitness(policy, self._lag)
        self._budget = settings.token_budget or 0
        if overrides(policy, "budget"):
            self._spy_on_budget(policy.budget)

    def attach(self, backend: Backend) -> None:
        """Observe `backend`; before it runs."""
        self._backend = backend
        backend.observe(self)

    # ---- what the backend tells

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        """A decision: record it, then hold it against every rule."""
        if self.violation is not None:
            return
        self._accepted.update((request.id, request) for request in arrived)
        record = self._record(scheduler, batch, arrived)
        self.records.append(record)
        self._by_iteration[batch.iteration] = record
        if not self._strict:
            return
        self._check_requests(scheduler, batch)
        self._check_budget(batch)
        self._check_tokens(scheduler, batch)
        self._check_blocks(scheduler.kv_cache, [*scheduler.running, *scheduler.padding])
        self._check_progress(batch)
        released = self._backend.num_released
        problem = self._steady.decided(scheduler, batch, released)
        if problem:
            self._fail("steady", f"iteration {batch.iteration}: {problem}")
        left = self._budget - batch.prefill_tokens - batch.decode_requests
        decision = Decision(scheduler, batch, left, self._lag)
        for claim, witness in self._witnesses:
            problem = witness.problem(decision)
            if problem:
                self._fail(f"claim {claim!r}", f"iteration {batch.iteration}: {problem}")

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        """An iteration ended: tokens and finishes."""
        if self.violation is not None:
            return
        record = self._by_iteration[completion.batch.iteration]
        sampled = completion.sampled()
        record.sampled = [self._rows[request.id] for request in sampled]
        record.finished = [self._rows[request.id] for request in completion.finished]
        if not self._strict:
            return
        for request in sampled:
            self._emitted[request.id] = self._emitted.get(request.id, 0) + 1
            self._futile = 0
        for request in completion.finished:
            if request.id in self._finished:
                self._fail("requests", f"request {request.id} finishes a second time")
            self._finished.add(request.id)
        # Who was decided early once more, and then seen to have ended.
        # Of who was refused with a token in flight, all that was computed counts as recomputed.
        self._discarded += sum(
            request.status is not Status.REJECTED for request in completion.batch.discarded
        )
        self._steady.completed(scheduler, completion, end)

    def ended(self, scheduler: Scheduler, requests: Sequence[ReleasedRequest]) -> None:
        """The run came to its end: nothing may be left or missing. `requests` are all of them."""
        if self.violation is not None or not self._strict:
            return
        if sorted(self._rows[r.id] for r in requests) != list(range(len(self._trace))):
            self._fail("requests", "not every request of the trace has come to an end")
        expected = 0
        for request in requests:
            expected += self._check_end(request)
        expected += self._discarded
        if self.computed_tokens != expected:
            self._fail(
                "tokens",
                f"{self.computed_tokens} tokens were computed; prompts, outputs and what "
                f"preemptions, cache hits and discarded tokens changed make {expected}",
            )
        kv_cache = scheduler.kv_cache
        if kv_cache.free_blocks != kv_cache.total_blocks or kv_cache.num_swapped:
            self._fail(
                "blocks",
                f"at the end {kv_cache.free_blocks} of {kv_cache.total_blocks} blocks are free "
                f"and {kv_cache.num_swapped} requests swapped out",
            )
        if scheduler.stored_tokens:
            self._fail("tokens", f"{scheduler.stored_tokens} tokens are stored at the end")

    # ---- rules

    def _check_end(self, request: ReleasedRequest) -> int:
        """What `request` should have computed in all."""
        row = self._rows[request.id]
        target = int(self._trace.output_tokens[row])
        emitted = self._emitted.get(request.id, 0)
        if request.status is Status.FINISHED:
            if emitted != target or request.id not in self._finished:
                self._fail("requests", f"request {row} finished with {emitted} of {target} tokens")
            total = request.prompt_tokens + emitted - 1
        elif request.status is Status.REJECTED:
            if not request.reason:
                self._fail("requests", f"request {row} is rejected without a reason")
            if request.id in self._accepted and Beyond.LATE_REJECTIONS not in self._beyond:
                self._fail("requests", f"request {row} was taken and then rejected")
            total = 0
        else:
            self._fail("requests", f"request {row} ended as {request.status}")
            total = 0
        return total + request.recomputed_tokens - request.cached_tokens

    def _check_requests(self, scheduler: Scheduler, batch: Batch) -> None:
        """Seats, arrivals, and everyone in exactly one place."""
        seats = self._settings.max_seqs
        running = [request.id for request in [*scheduler.running, *scheduler.padding]]
        if len(running) > seats:
            self._fail("seats", f"{len(running)} requests run, there are {seats} seats")
        places = running + [request.id for request in scheduler.waiting]
        for request in self._accepted.values():
            open_ended = request.status not in (Status.FINISHED, Status.REJECTED)
            if open_ended and places.count(request.id) != 1:
                self._fail(
                    "requests",
                    f"request {self._rows[request.id]} is in {places.count(request.id)} places of "
                    "the running list and the waiting line, must be in one",
                )
        for entry in batch.expand():
            row = self._rows.get(entry.request.id)
            if row is None or max(self._arrival(row), entry.request.arrival) > batch.decided_at:
                self._fail(
                    "arrival", f"request {row} runs before it arrives, at {batch.decided_at} s"
                )
            elif entry.request.id not in running:
                self._fail("requests", f"request {row} gets tokens but does not run")

    def _arrival(self, row: int) -> float:
        """When a request comes at the earliest, as far as the trace knows."""
        is_follow_up = self._trace.parent is not None and self._trace.parent[row] >= 0
        if is_follow_up or self._settings.concurrency is not None:
            return 0.0
        return float(self._trace.arrival[row])

    def _check_budget(self, batch: Batch) -> None:
        tokens = batch.prefill_tokens + batch.decode_requests
        if tokens <= self._budget:
            return
        # `run_decodes` gives every decode its token whatever the budget is.
        if not batch.prefills and overrides(self._policy, "schedule"):
            return
        if Beyond.LONE_PREFILL in self._beyond and len(batch.expand()) == 1:
            return
        self._fail(
            "budget",
            f"iteration {batch.iteration} runs {batch.prefill_tokens} prefill tokens and "
            f"{batch.decode_requests} decodes, the budget is {self._budget}",
        )

    def _check_tokens(self, scheduler: Scheduler, batch: Batch) -> None:
        """Everybody goes on where it stood, and reads the tokens that it should."""
        entries = batch.expand()
        if len({entry.request.id for entry in entries}) != len(entries):
            self._fail("tokens", "a request runs twice in one iteration")
        if sum(e.tokens for e in entries) != batch.prefill_tokens + batch.decode_requests:
            self._fail("tokens", "the batch's counts and its entries differ")
        for request in batch.preempted:
            if not request.is_swapped:
                self._computed.pop(request.id, None)
        self._copy(batch)
        for entry in entries:
            request, stop = entry.request, entry.context + entry.tokens
            stood = self._computed.get(request.id, 0)
            if entry.context != stood and (entry.kind == "run" or entry.context < stood):
                self._fail(
                    "tokens",
                    f"request {self._rows[request.id]} goes on at token {entry.context}, "
                    f"it stood at {stood}",
                )
            self._computed[request.id] = stop
            self.computed_tokens += entry.tokens
            table = scheduler.kv_cache.block_table(request)
            if len(table) * scheduler.kv_cache.block_size < stop:
                self._fail("blocks", f"request {request.id} has no slot for token {stop}")
                return
            self._paper.write(table, entry.context, self._tokens(request, entry.context, stop))
        for entry in entries:
            stop = entry.context + entry.tokens
            read = self._paper.read(scheduler.kv_cache.block_table(entry.request), stop)
            if read != self._tokens(entry.request, 0, stop):
                row = self._rows[entry.request.id]
                self._fail("tokens", f"request {row} reads tokens that are not its own")

    def _copy(self, batch: Batch) -> None:
        for transfer in batch.transfers:
            match transfer.kind:
                case TransferKind.SWAP_OUT:
                    self._paper.swap_out(transfer.pairs)
                case TransferKind.SWAP_IN:
                    self._paper.swap_in(transfer.pairs)
                case TransferKind.MOVE:
                    self._paper.move(transfer.pairs)

    def _tokens(self, request: Request, start: int, stop: int) -> list[int]:
        if request.id not in self._said:
            output = int(self._trace.output_tokens[self._rows[request.id]])
            end = request.prompt_tokens + output
            self._said[request.id] = self._content.token_ids(request.id, 0, end, VOCAB).tolist()
        return self._said[request.id][start:stop]

    def _check_blocks(self, kv_cache: KVCache, holders: list[Request]) -> None:
        tables = [list(kv_cache.block_table(request)) for request in holders]
        blocks = [block for table in tables for block in table]
        held = set(blocks)
        if not all(1 <= block <= kv_cache.total_blocks for block in held):
            self._fail("blocks", "a block id is not from 1 to the total; 0 is the null block")
        if len(blocks) != len(held) and not kv_cache.has_prefix_cache:
            self._fail("blocks", "a block has two owners")
        if kv_cache.free_blocks + len(held) != kv_cache.total_blocks:
            self._fail(
                "blocks",
                f"{kv_cache.free_blocks} blocks are free and {len(held)} held, "
                f"of {kv_cache.total_blocks}",
            )

    def _check_progress(self, batch: Batch) -> None:
        self._futile += len(batch.preempted)
        if self._futile > self._max_futile:
            self._fail(
                "livelock",
                f"{self._futile} preemptions without an output token in between, up to iteration "
                f"{batch.iteration}; all requests have {self._max_futile} tokens together",
            )

    # ---- small parts

    def _record(
        self, scheduler: Scheduler, batch: Batch, arrived: list[Request]
    ) -> IterationRecord:
        rows, kv_cache = self._rows, scheduler.kv_cache
        entries = batch.expand()
        running, waiting = scheduler.running, scheduler.waiting
        return IterationRecord(
            batch.iteration,
            batch.decided_at,
            [rows[request.id] for request in arrived],
            [Entry(rows.get(e.request.id, -1), e.tokens, e.kind, e.context) for e in entries],
            [rows[request.id] for request in batch.preempted],
            [(rows[t.request.id], t.kind.value, t.pairs) for t in batch.transfers],
            {rows.get(e.request.id, -1): list(kv_cache.block_table(e.request)) for e in entries},
            kv_cache.free_blocks,
            kv_cache.total_blocks,
            [rows.get(request.id, -1) for request in running],
            [rows.get(request.id, -1) for request in waiting],
            [_visible(request) for request in [*running, *waiting]],
        )

    def _spy_on_budget(self, budget: Callable[[Any], int]) -> None:
        def spy(step: Any) -> int:
            self._budget = budget(step)
            return self._budget

        self._policy.budget = spy  # type: ignore[method-assign]

    def _fail(self, rule: str, problem: str) -> None:
        if self.violation is None:
            self.violation = PolicyViolation(rule, problem)
            self._backend.stop()


def _visible(request: Request) -> tuple[Any, ...]:
    """All that stands on a request, for whoever reads it."""
    return tuple(getattr(request, name) for name in _VISIBLE)
