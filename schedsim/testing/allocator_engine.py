"""`AllocatorEngine`: requests that come, run and go around a memory manager."""

from schedsim.request import Request, Status
from schedsim.testing.allocator_checks import AllocatorChecks, are_ids, name_of

PROMPT, OUTPUT, REQUESTS = 20, 10, 6
LENGTH = PROMPT + OUTPUT
"""Tokens that every request of the machine says, and how many requests there are."""


class AllocatorEngine(AllocatorChecks):
    """What `AllocatorMachine` does with one request or one iteration; checks what it is answered.

    The calls come in the order in which a scheduler makes them, decisions one at a time.
    """

    predictions: list[int]
    admitted: list[Request]
    next_order: int

    # ---- planning an iteration

    def _decoding(self) -> list[Request]:
        members = self.decode_set.members
        return sorted([*members, *self.held], key=lambda request: request.order)

    def _prefilling(self) -> list[Request]:
        return [
            request
            for request in self.running
            if request._decode_set is None
            and request not in self.held
            and request.id not in self.planned
        ]

    def _admit(self, request: Request, tokens: int, spare: int) -> None:
        kv_cache, before = self.kv_cache, self._books()
        found = kv_cache.find(request)
        begin = found.blocks * kv_cache.block_size
        known = request.num_known_tokens
        if begin >= known:
            self._fail(
                f"finds {begin} of the {known} known tokens of {name_of(request)}: one at "
                "least has to be computed"
            )
        stop = begin + min(tokens, known - begin)
        need = kv_cache.blocks_to_admit(request, stop + spare)
        found_told = f"{begin} tokens found, " if begin else ""
        self._note(
            f"admit {name_of(request)}: {found_told}run to token {stop}, room for {stop + spare}"
        )
        if not kv_cache.reserve(request, stop + spare):
            self._expect_refusal(before, need, "reserve")
            return
        self._take_moves()
        self._expect_taken(before, need)
        self._start(request, stop, begin)

    def _start(self, request: Request, stop: int, computed: int) -> None:
        self.waiting.remove(request)
        request._computed = computed
        request.status = Status.RUNNING
        request.order = self.next_order
        self.next_order += 1
        self.running.append(request)
        self.admitted.append(request)
        self._plan(request, stop)

    def _extend(self, request: Request, tokens: int) -> None:
        before = self._books()
        stop = min(request.num_computed_tokens + tokens, request.num_known_tokens)
        self._note(f"extend {name_of(request)}: run to token {stop}")
        if self.kv_cache.reserve(request, stop):
            self._take_moves()
            self._plan(request, stop)
        else:
            held = len(before.tables[request.id])
            self._expect_refusal(before, self.kv_cache.blocks_for(stop) - held, "reserve")

    def _plan(self, request: Request, stop: int) -> None:
        room = len(self.kv_cache.block_table(request)) * self.kv_cache.block_size
        if room < stop:
            self._fail(f"says that {name_of(request)} has room for {stop} tokens, it has {room}")
        if self.kv_cache.has_prefix_cache:
            self.kv_cache.plan(request, stop)
        self.planned[request.id] = stop

    def _decode_all(self) -> None:
        if self.held or not self.kv_cache.can_grow_all():
            self._decode(self._decoding())
            return
        self._note("decode all")
        self.kv_cache.grow_all()
        self._take_moves()
        self.decodes = list(self.decode_set.members)

    def _decode(self, chosen: list[Request]) -> None:
        self._note(f"decode {', '.join(map(name_of, chosen))}")
        kv_cache = self.kv_cache
        grown = []
        for request in chosen:
            if request in self.held:
                self.held.remove(request)
                self._join(request)
            before = self._books()
            if kv_cache.grow(request):
                self._take_moves()
                grown.append(request)
            else:
                if request.id not in before.needy:
                    self._fail(f"grow refuses {name_of(request)}, which has a slot")
                self._expect_refusal(before, 1, "grow")
        for request in list(self.decode_set.members):
            if request not in grown:
                self._hold(request)
        self.decodes = grown

    def _join(self, request: Request) -> None:
        self.decode_set.join(request)
        self.kv_cache.join(request)

    def _hold(self, request: Request) -> None:
        self.kv_cache.leave(request)
        self.decode_set.leave(request)
        self.held.append(request)

    # ---- taking back

    def _preempt(self, request: Request, swap: bool) -> None:
        if self.kv_cache.has_prefix_cache:
            for other in self.kv_cache.relying_on(request, self.admitted):
                if other in self.running:
                    self._preempt(other, swap=False)
        computed = request.num_computed_tokens
        pairs = self._swap_out(request) if swap else None
        self._release(request)
        if request in self.held:
            self.held.remove(request)
        if request._decode_set is not None:
            self.decode_set.leave(request)
        if self.decodes and request in self.decodes:
            self.decodes.remove(request)
        self.planned.pop(request.id, None)
        self.running.remove(request)
        if request in self.admitted:
            self.admitted.remove(request)
        request.is_swapped = pairs is not None
        request._computed = 0 if pairs is None else computed
        request.status = Status.PREEMPTED
        self.waiting.append(request)

    def _swap_out(self, request: Request) -> list[tuple[int, int]] | None:
        kv_cache, before = self.kv_cache, self._books()
        need = kv_cache.blocks_for(request.num_computed_tokens)
        self._note(f"swap out {name_of(request)}: {request.num_computed_tokens} tokens")
        pairs = kv_cache.swap_out(request)
        taken = {block for kept in self.swapped.values() for block in kept}
        if pairs is None:
            self._expect_unchanged(before, "swap_out")
            # A prefix cache also refuses what this very iteration is to compute.
            sure = not (kv_cache.has_prefix_cache and (self.planned or self.decodes))
            if sure and 0 < need <= kv_cache.host_blocks - len(taken):
                self._fail(
                    f"swap_out refuses {name_of(request)}, which needs {need} of the "
                    f"{kv_cache.host_blocks - len(taken)} free host blocks"
                )
            return None
        targets = [target for _, target in pairs]
        if [source for source, _ in pairs] != list(before.tables[request.id][:need]):
            self._fail(
                f"copies {pairs} for {name_of(request)}, whose {need} computed blocks are "
                f"{list(before.tables[request.id][:need])}"
            )
        if not (taken.isdisjoint(targets) and are_ids(targets, kv_cache.host_blocks)):
            self._fail(
                f"gives host blocks {targets} to {name_of(request)}; {sorted(taken)} of "
                f"{kv_cache.host_blocks} are taken"
            )
        self.paper.swap_out(pairs)
        self.swapped[request.id] = targets
        return pairs

    def _release(self, request: Request) -> None:
        self._note(f"release {name_of(request)}")
        before = self._books()
        table = before.tables[request.id]
        others = {b for i, t in before.tables.items() if i != request.id for b in t}
        kept = sum(block in others for block in table)
        told = self.kv_cache.release(request)
        if told != kept:
            self._fail(
                f"release says that others hold {told} blocks of {name_of(request)}, "
                f"{kept} of {list(table)} they do"
            )
        free = before.free_blocks + len(table) - kept
        if self.kv_cache.free_blocks != free:
            self._fail(
                f"{self.kv_cache.free_blocks} blocks are free after {name_of(request)} gave "
                f"back {len(table) - kept}, {before.free_blocks} were before"
            )
        self._expect_key_error(request, "which was released")

    def _take_moves(self) -> None:
        """Make the copies that the manager asks for, before anything else happens."""
        if self.kv_cache.moves_blocks:
            for request, pairs in self.kv_cache.take_moves():
                self._note(f"move blocks of {name_of(request)}: {pairs}")
                self.paper.move(pairs)

    # ---- the iteration runs

    def _run(self, gives_back: bool) -> None:
        self._note("run")
        before = {request.id: request.num_computed_tokens for request in self.running}
        first_tokens = self._book()
        for request in self.running:
            start, stop = before[request.id], request.num_computed_tokens
            table = self.kv_cache.block_table(request)
            self.paper.write(table, start, self.tokens[request.id][start:stop])
        self._read_everything()
        if self.decodes:
            self.decode_set.end(0.0)
        for request in first_tokens:
            request._generated += 1
        self.planned, self.decodes, self.admitted = {}, None, []
        for request in [r for r in self.running if r.num_known_tokens == LENGTH]:
            self._finish(request)
            if gives_back:
                self._give_back(request)

    def _book(self) -> list[Request]:
        """The iteration is decided; returns whose prefill it completes.

        Who is done with that decodes from now on, unless the token that it gets is its last.
        """
        if self.decodes is None:
            for request in list(self.decode_set.members):
                self._hold(request)
        if self.decodes:
            self.decode_set.advance()
            self.kv_cache.advance()
        first_tokens = []
        for request in self.running:
            if request.id in self.planned:
                request._computed = self.planned[request.id]
                if request._computed == request.num_known_tokens:
                    first_tokens.append(request)
        for request in first_tokens:
            if request.num_known_tokens + 1 < LENGTH:
                self._join(request)
        if self.kv_cache.has_prefix_cache:
            self._commit()
        return first_tokens

    def _commit(self) -> None:
        free = self.kv_cache.free_blocks
        told = self.kv_cache.commit()
        if self.kv_cache.free_blocks - free != told:
            self._fail(
                f"commit says that {told} blocks were given back, "
                f"{self.kv_cache.free_blocks - free} were"
            )

    def _finish(self, request: Request) -> None:
        if request._decode_set is not None:
            self.kv_cache.leave(request)
            self.decode_set.leave(request)
        self.running.remove(request)
        request.status = Status.FINISHED
        self.padding.append(request)

    def _give_back(self, request: Request) -> None:
        self._release(request)
        self.padding.remove(request)
        self.waiting.append(self._fresh(request.id))

    def _fresh(self, request_id: int) -> Request:
        predicted = float(self.predictions[request_id])
        return Request(request_id, 0.0, PROMPT, OUTPUT, predicted_output=predicted)
