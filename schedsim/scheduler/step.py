"""`Step`: what a policy sees and does in one iteration."""

from typing import TYPE_CHECKING

from schedsim.errors import PolicyError
from schedsim.policies.base import Gate, PreemptMode, overrides
from schedsim.request import Request, Status
from schedsim.scheduler.batch import Batch, Chunk, Transfer, TransferKind
from schedsim.scheduler.view import StepView

if TYPE_CHECKING:
    from schedsim.scheduler.scheduler import Scheduler


class Step(StepView):
    """One iteration as it is given to a policy: `StepView` to read, verbs to act.

    One object serves the whole run. Verbs check that they can be done, keep the books, and say
    whether it happened. The coarse verbs (`run_running`, `run_decodes`,
    `run_prefills`, `admit_waiting`) ask the policy's hooks and treat the decode set as one thing;
    the fine ones (`run`, `admit`, `preempt`, `reject`) act on one request. They may be mixed: a
    coarse verb passes over what is planned already. All but `reject` and `rekey` are for the time
    in which an iteration is planned (`schedule` and the hooks called from it).
    """

    __slots__ = ("_barred", "_one_by_one", "_planning", "_runs_decodes", "_walked")

    def __init__(self, scheduler: "Scheduler") -> None:
        super().__init__(scheduler)
        self._walked: set[int] = set()
        self._barred: set[int] = set()
        self.begin(0.0)
        self._planning = False

    def begin(self, now: float) -> None:
        """Start planning an iteration at `now`; called by the scheduler."""
        self._reset(now)
        self._runs_decodes = False
        self._one_by_one = False
        self._walked.clear()
        self._barred.clear()
        self._planning = True

    # ---- coarse verbs

    def run_running(self) -> None:
        """Run every running request in running order within the budget (vLLM v1).

        Decodes take one token, unfinished prefills what `chunk` says. Where a block is missing,
        `victim` says who is preempted.
        """
        if not self._planning:
            raise self._unplanned()
        scheduler = self._scheduler
        members = scheduler.decode_set.members
        prefilling = scheduler.prefilling
        if self._runs_decodes:
            self.run_prefills()
            return
        decodes_lead = not (prefilling and members) or members[-1].order < prefilling[0].order
        if not (decodes_lead and len(members) <= self.tokens_left and self._decode_at_once()):
            self._walk(scheduler.running, within_budget=True)
            return
        self._runs_decodes = True
        self.tokens_left -= len(members)
        if prefilling:
            self.run_prefills()

    def run_decodes(self) -> None:
        """Give every request that decodes one token, even beyond the budget.

        Where a block is missing, `victim` says who is preempted.
        """
        if not self._planning:
            raise self._unplanned()
        scheduler = self._scheduler
        members = scheduler.decode_set.members
        if self._runs_decodes:
            return
        if self._decode_at_once():
            self._runs_decodes = True
            self.tokens_left -= len(members)
        else:
            self._walk(scheduler.decoding, within_budget=False)

    def run_prefills(self) -> None:
        """Run a chunk of every unfinished prefill in running order, within the budget."""
        if not self._planning:
            raise self._unplanned()
        for request in list(self._scheduler.prefilling):
            if self.tokens_left <= 0:
                break
            if request.status is Status.RUNNING and request.id not in self._chunks:
                self._run_chunk(request)
                if self.preempted and self._ends_at(request):
                    break

    def admit_waiting(self) -> int:
        """Admit from the head of the line until gate, budget, seats or memory says stop.

        Returns the number of requests admitted.
        """
        if not self._planning:
            raise self._unplanned()
        scheduler = self._scheduler
        queue = scheduler.queue
        if not len(queue):
            return 0
        before = len(self._admitted)
        while self.tokens_left > 0:
            request = queue.first()
            if request is None:
                break
            if request.id in self._barred:
                verdict = Gate.SKIP
            elif scheduler.num_running >= scheduler.max_seqs:
                if self._displace_for(request):
                    continue
                break
            else:
                verdict = self._try_admission(request)
            if verdict is Gate.STOP:
                if self._displace_for(request):
                    continue
                break
            if verdict is Gate.SKIP and request in queue:
                queue.set_aside(request)
        queue.restore()
        return len(self._admitted) - before

    # ---- fine verbs

    def run(self, request: Request, tokens: int = 1) -> bool:
        """Run `tokens` tokens of a running request; preempts by `victim` where a block is missing.

        Once a policy runs single decodes, those that it does not name are held this iteration. One
        whose last token is in flight is passed over (False).

        Raises:
            PolicyError: the request does not run, is planned already, or has fewer tokens left.
        """
        if not self._planning:
            raise self._unplanned()
        if request.status is not Status.RUNNING:
            raise self.error(request, f"cannot be run, it is {request.status}")
        decodes = request._decode_set is not None
        if (
            request.id in self._chunks
            or request.id in self._walked
            or (decodes and self._runs_decodes)
        ):
            raise self.error(request, "is run twice in one iteration")
        if request in self._scheduler.ending:
            return False
        tokens = self.whole(tokens, request, "`run`")
        left = request.num_tokens_left
        if not 1 <= tokens <= left:
            raise self.error(request, f"is given {tokens} tokens, it has {left} left to compute")
        if request in self._scheduler.prefilling:
            return self._reserve_chunk(request, tokens)
        self._one_by_one = True
        return self._run_decode(request)

    def admit(self, request: Request, tokens: int, reserve: int = 0) -> bool:
        """Admit a waiting request with a first chunk of `tokens`; False if blocks are missing.

        False also if this decision preempted it while a batch is in flight, which may hold a token
        of it.

        It begins with what the prefix cache holds of it, or with what was swapped out, which is
        copied back, and the chunk comes after that: a chunk longer than what is then left is cut
        to it, so that a policy which knows nothing of caches may ask for all known tokens.
        `reserve` takes room for that many tokens in all at once (default: up to the end of the
        chunk).

        Raises:
            PolicyError: the request does not wait, no seat is free, or `tokens` is impossible.
        """
        if not self._planning:
            raise self._unplanned()
        scheduler = self._scheduler
        if request not in scheduler.queue:
            raise self.error(request, f"cannot be admitted, it is {request.status}")
        if scheduler.num_running >= scheduler.max_seqs:
            raise self.error(request, f"is admitted beyond the {scheduler.max_seqs} seats")
        tokens = self.whole(tokens, request, "`admit`")
        reserve = self.whole(reserve, request, "its reservation")
        known = request.num_known_tokens
        if not 1 <= tokens <= known:
            raise self.error(request, f"is given {tokens} tokens, it has {known} left to compute")
        if scheduler.is_in_flight and request in self.preempted:
            return False
        if request.is_swapped:
            tokens = min(tokens, known - request._computed)
            if not self._swap_in(request, max(request._computed + tokens, reserve)):
                return False
        else:
            kv_cache = scheduler.kv_cache
            found = kv_cache.find(request)
            if found.blocks:
                cached = found.blocks * kv_cache.block_size
                tokens = min(tokens, known - cached)
                if not kv_cache.reserve(request, max(cached + tokens, reserve)):
                    return False
                scheduler.take_prefix(request, found)
            elif not kv_cache.reserve(request, max(tokens, reserve)):
                return False
            if scheduler.moves_blocks:
                self._note_moves()
        scheduler.start(request, self.now)
        self._admitted.append(request)
        self._plan_chunk(request, tokens)
        if scheduler.has_on_admit:
            scheduler.policy.on_admit(request, self)
        return True

    def preempt(self, request: Request, mode: PreemptMode | None = None) -> None:
        """Preempt a running request: its blocks come free, it waits again.

        `mode` None asks the policy's `mode`. A swap copies what is computed to the host tier, and
        is a recompute where that has no room. What was planned for it in this iteration is dropped
        and goes back to the budget. Who was admitted in this iteration and found in the prefix
        cache what `request` was to compute in it cannot run either and is preempted before it.

        Raises:
            PolicyError: the request does not run.
        """
        if not self._planning:
            raise self._unplanned()
        if request.status is not Status.RUNNING:
            raise self.error(request, f"cannot be preempted, it is {request.status}")
        if self._admitted and self._scheduler.has_prefix_cache:
            for other in self._scheduler.kv_cache.relying_on(request, self._admitted):
                if other.status is Status.RUNNING:
                    self.preempt(other)
        chunk = self._chunks.pop(request.id, None)
        if chunk is not None:
            self.tokens_left += chunk.tokens
            if request in self._admitted:
                self._admitted.remove(request)
        elif request.id in self._walked:
            self._walked.remove(request.id)
            self.tokens_left += 1
        elif self._runs_decodes and request._decode_set is not None:
            self.tokens_left += 1
        if mode is None:
            mode = self._mode_of(request)
        pairs = None
        if mode is PreemptMode.SWAP and request.num_computed_tokens:
            pairs = self._scheduler.kv_cache.swap_out(request)
            self._scheduler.num_unswapped += pairs is None
        self._scheduler.stop(request, self.now, swapped=pairs is not None)
        if pairs is not None:
            self._transfers.append(Transfer(request, TransferKind.SWAP_OUT, pairs))
        self.preempted.append(request)
        if self._scheduler.is_in_flight:
            self._barred.add(request.id)
        if self._scheduler.has_on_preempt:
            self._scheduler.policy.on_preempt(request, self)

    def reject(self, request: Request, reason: str) -> None:
        """Refuse a request that waits or arrives, for good.

        Raises:
            PolicyError: it is neither waiting nor arriving.
        """
        if request in self._scheduler.queue:
            self._scheduler.queue.remove(request)
        elif request.status is not Status.WAITING:
            raise self.error(request, f"cannot be rejected, it is {request.status}")
        self._scheduler.refuse(request, reason)

    def rekey(self, request: Request) -> None:
        """Put a waiting request in line again because its key or group has changed."""
        if request in self._scheduler.queue:
            self._scheduler.queue.rekey(request)

    # ---- for the scheduler

    def seal(self) -> Batch:
        """Turn the plan into a batch; called by the scheduler when the policy is done."""
        self._planning = False
        scheduler = self._scheduler
        if self._one_by_one:
            for request in list(scheduler.decode_set.members):
                if request.id not in self._walked:
                    scheduler.hold(request)
            self._runs_decodes = True
        decode_set = scheduler.decode_set
        members = decode_set.members
        batch = Batch(
            iteration=self.iteration,
            decided_at=self.now,
            admitted=self._admitted,
            preempted=self.preempted,
        )
        if self._transfers:
            batch.transfers = self._transfers
            for _, kind, pairs in self._transfers:
                if kind is TransferKind.MOVE:
                    batch.copied_blocks += len(pairs)
                else:
                    batch.swapped_blocks += len(pairs)
        if self._runs_decodes and members:
            batch.runs_decodes = True
            batch.decodes = members.copy()
            batch.decode_requests = batch.sampled = len(members)
            batch.decode_context = decode_set.context
            batch.longest_context = decode_set.longest_context
        if self._chunks:
            self._seal_chunks(batch)
        if scheduler.padding:
            self.seal_padding(batch)
        if batch.prefills or batch.runs_decodes or self.preempted:
            self.iteration += 1
        return batch

    def seal_padding(self, batch: Batch) -> None:
        """What the finished members of a static batch add to it."""
        padding = self._scheduler.padding
        batch.padding_requests = len(padding)
        batch.padding_context = sum(r.prompt_tokens + r._generated for r in padding)  # all real

    # ---- inside

    def _seal_chunks(self, batch: Batch) -> None:
        first_tokens: list[Request] = []
        batch.prefills = list(self._chunks.values())
        for request, tokens, context in batch.prefills:
            batch.add_chunk(tokens, context)
            if context + tokens == request.prompt_tokens + request._generated:
                first_tokens.append(request)
        batch.first_tokens = first_tokens
        batch.sampled += len(first_tokens)

    def _mode_of(self, request: Request) -> PreemptMode:
        if not self._scheduler.has_mode:
            return PreemptMode.RECOMPUTE
        mode = self._scheduler.policy.mode(request, self)
        if not isinstance(mode, PreemptMode):
            raise self.error(request, f"gets {mode!r} from `mode`, must be a PreemptMode")
        return mode

    def _swap_in(self, request: Request, tokens: int) -> bool:
        pairs = self._scheduler.kv_cache.swap_in(request, tokens)
        if pairs is None:
            return False
        if self._scheduler.moves_blocks:
            self._note_moves()
        self._transfers.append(Transfer(request, TransferKind.SWAP_IN, pairs))
        request.is_swapped = False
        self._scheduler.stored_tokens += request._computed
        return True

    def _note_moves(self) -> None:
        """What the memory manager moved in the call before has its place among the transfers."""
        self._transfers += [
            Transfer(request, TransferKind.MOVE, pairs)
            for request, pairs in self._scheduler.kv_cache.take_moves()
        ]

    def _unplanned(self) -> PolicyError:
        return self.error(None, "acts while no iteration is planned; do it in `schedule`")

    def _decode_at_once(self) -> bool:
        """Grow the whole decode set if nobody is held or planned and no block can be missing."""
        scheduler = self._scheduler
        if scheduler.held or self._one_by_one or not scheduler.can_decode_all():
            return False
        scheduler.kv_cache.grow_all()
        if scheduler.moves_blocks:
            self._note_moves()
        return True

    def _walk(self, requests: list[Request], within_budget: bool) -> None:
        """Run requests one by one: memory is short, someone is held, or the budget binds."""
        self._one_by_one = True
        decode_set = self._scheduler.decode_set
        held = set(map(id, self._scheduler.held))
        ending = set(map(id, self._scheduler.ending))
        for request in requests:
            if request.status is not Status.RUNNING:
                continue  # a victim of one before it
            if request.id in self._walked or request.id in self._chunks or id(request) in ending:
                continue
            if within_budget and self.tokens_left <= 0:
                break
            if request._decode_set is decode_set or id(request) in held:
                self._run_decode(request)
            else:
                self._run_chunk(request)
            if self._ends_at(request):
                break

    def _ends_at(self, request: Request) -> bool:
        """Whether `request`, whose turn it was, preempted itself and with that ends all turns."""
        return (
            request.status is not Status.RUNNING and self._scheduler.policy.stops_at_own_preemption
        )

    def _run_decode(self, request: Request) -> bool:
        """One token for a decode; False if it was preempted or has to wait."""
        scheduler = self._scheduler
        if request._decode_set is None:
            scheduler.rejoin(request)
        kv_cache = scheduler.kv_cache
        needs_free_block = scheduler.needs_free_block
        while (needs_free_block and not kv_cache.free_blocks) or not kv_cache.grow(request):
            if not self._make_room(request):
                return False
        if scheduler.moves_blocks:
            self._note_moves()
        self._walked.add(request.id)
        self.tokens_left -= 1
        return True

    def _run_chunk(self, request: Request) -> bool:
        """The next chunk of an unfinished prefill, as long as `chunk` says."""
        scheduler = self._scheduler
        left = request.prompt_tokens + request._generated - request._computed
        if scheduler.has_chunk:
            tokens = self.whole(scheduler.policy.chunk(request, left, self), request, "`chunk`")
            if not 0 <= tokens <= left:
                raise self.error(request, f"gets a chunk of {tokens}, it has {left} tokens left")
        else:
            tokens = min(left, self.tokens_left)
        return tokens > 0 and self._reserve_chunk(request, tokens)

    def _reserve_chunk(self, request: Request, tokens: int) -> bool:
        kv_cache = self._scheduler.kv_cache
        while not kv_cache.reserve(request, request._computed + tokens):
            if not self._make_room(request):
                return False
        if self._scheduler.moves_blocks:
            self._note_moves()
        self._plan_chunk(request, tokens)
        return True

    def _plan_chunk(self, request: Request, tokens: int) -> None:
        context = request._computed
        self._chunks[request.id] = Chunk(request, tokens, context)
        self.tokens_left -= tokens
        if self._scheduler.has_prefix_cache:
            self._scheduler.kv_cache.plan(request, context + tokens)

    def _make_room(self, needy: Request) -> bool:
        """Preempt whom `victim` names; False if `needy` was the victim or has to wait."""
        victim = self._scheduler.policy.victim(needy, self)
        if victim is None:
            return False
        self.preempt(victim)
        return victim is not needy

    def _try_admission(self, request: Request) -> Gate:
        scheduler = self._scheduler
        policy = scheduler.policy
        left = request.prompt_tokens + request._generated - request._computed
        if scheduler.has_prefix_cache:
            left -= scheduler.find_prefix(request)
        if scheduler.has_chunk:
            tokens = self.whole(policy.chunk(request, left, self), request, "`chunk`")
            if tokens <= 0:
                return Gate.STOP
        else:
            tokens = min(left, self.tokens_left)
        if scheduler.has_gate:
            verdict = policy.gate(request, tokens, self)
            if request not in scheduler.queue:
                return Gate.SKIP  # rejected by its own gate
            if not isinstance(verdict, Gate):
                raise self.error(request, f"gets {verdict!r} from `gate`, must be a Gate")
            if verdict is not Gate.ADMIT:
                return verdict
        reserve = policy.reservation(request, tokens) if scheduler.has_reservation else tokens
        return Gate.ADMIT if self.admit(request, tokens, reserve) else Gate.STOP

    def _displace_for(self, request: Request) -> bool:
        if not overrides(self._scheduler.policy, "displace"):
            return False
        victim = self._scheduler.policy.displace(request, self)
        if victim is None:
            return False
        self.preempt(victim)
        self._barred.add(victim.id)
        return True
