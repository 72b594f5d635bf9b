"""The batches that a calibration measures, and how an engine gets from one to the next.

A design is made of stages, each of which begins in an empty engine. In some of them decodes of one
context length come group after group, from one to as many as there are seats, or go in that order;
between, chunks run alone and beside them. Others are loads, whose requests come and go. What brings
the engine from one of these batches to the next runs, too, and counts where it is a batch like
others.
"""

from collections.abc import Sequence

import numpy as np

from schedsim.experiments.design import Batch, Design, Limits, Stage, Turn, log_uniform
from schedsim.experiments.design_loads import (
    COUNT_EVERY,
    LOADS,
    OUTPUTS,
    PROMPTS,
    Load,
    LoadWriter,
    Room,
)

MEASURED_DECODES = 4
"""Iterations of a batch of decodes that count; one before and one after them do not, which share
the host's work on what joins or leaves."""

MEASURED_CHUNKS = 2
"""Chunks in a row that count, each after the context of the one before."""

DECODES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 384, 512, 768, 1024)
CONTEXTS = (32, 256, 1024, 4096, 16384, 65536)
CHUNKS = (
    *(16, 32, 48, 64, 96, 112, 128, 144, 192, 240, 256, 272, 320, 384, 400, 448, 512, 528, 640),
    *(656, 768, 784, 896, 912, 1024, 1040, 1152, 1168, 1280, 1300, 1536, 1552, 1792, 2048, 2064),
    *(2560, 2576, 3072, 4096, 6144, 8192, 12288, 16384),
)
"""Sizes at which graphs and tiles end, and sizes a little beyond."""

CHUNKS_AFTER = (16, 64, 128, 256, 384, 512, 768, 1024, 2048)
AFTER = (256, 1024, 2048, 4096, 8192, 16384, 32768)
TOGETHER = (2, 4, 8, 16, 20, 40, 80)
TOGETHER_AFTER = ((2, 512), (4, 1024), (4, 2048), (8, 2048))
"""(chunks, tokens of all), the first of them after context."""
TOGETHER_TOKENS = (256, 1024, 2560, 4096, 16384)
TOGETHER_LARGE = ((8, 32768), (16, 32768), (16, 65536))
"""(chunks, tokens of all), where the budget is larger than `LEAD_TOKENS`, or as many as it has."""

FEW = 16
TOKENS_OF_MANY = 32
"""More than so many chunks have so many tokens each, or more, as in batches of real prompts; then
an engine with graphs has one for them, up to its largest."""

MIXED = (
    *((1, 16), (1, 64), (1, 256), (1, 512), (1, 1024), (1, 2048)),
    *((4, 128), (8, 32), (20, 64), (4, 768)),
)
"""(chunks, tokens of each) beside decodes; the last is beyond what graphs hold."""

FULL = ((1, 512), (2, 512), (1, 2048), (4, 2048))
"""(chunks, tokens of the whole batch, decodes included): what a policy with a token budget runs all
the time when requests wait."""

MIXED_AT_A_LEVEL = 3
MIXED_AFTER = (0, 0, 0, 512, 2048, 4096, 8192)
FILLED = 0.85
"""Share of the cache that the decodes of a stage fill at most."""

STAGE_TOKENS = 1 << 19
"""Tokens that are computed for the decodes of a stage at most, those of long contexts counting as
more: 65,536 of one context as twice as many, because attention takes that long."""

SHORT = 64
"""Context of the decodes beside one that is long (tokens)."""

OUTGROWS = 256
SPARE = 6
"""Decodes that outgrow their room have so many tokens, or a smaller power of two, less a few."""

LEAD_TOKENS = 16384
"""Tokens in a batch of those that only bring contexts into the cache, at most."""

COOLED = 0.25
COOLING = 40
"""Before this share of the batches the device computes so many single tokens, as under a light
load. After prefills it is at its power limit, and most batches of a design come after prefills."""

UNEVENNESS = 0.75
"""Contexts of a stage differ from its length by up to this share of it."""

LOADED = 0.5
"""Share of the cache that requests of a load hold at most: so each finds room in one piece, too."""

TURNS_OF_A_BATCH = 4 * COUNT_EVERY
"""Iterations of a load that make a batch of the design: between two it may be over. With whole
cycles of what counts, no decodes that count end one, unaware of the chunks that follow."""

WARM_UP_DECODES = 200
UNUSED = 2
"""Output tokens that a request is never given, so that it does not end."""

_AT_A_LEVEL = MEASURED_DECODES + 2 + MIXED_AT_A_LEVEL * MEASURED_CHUNKS + 2
_LAUNCH = 1024
"""Tokens of chunks whose launch may take so long that the iteration before seems longer."""


def make_design(limits: Limits, passes: int, rng: np.random.Generator) -> Design:
    """The same design `passes` times, with stages, sizes and lengths in an order of their own."""
    writer = _Writer(limits, rng)
    writer.design.warm_up = writer.warm_up()
    seats = limits.max_seqs
    for _ in range(passes):
        stages = [writer.decodes([length] * seats) for length in writer.lengths]
        stages.append(writer.decodes([writer.longest, *[SHORT] * (seats - 1)]))
        stages.append(writer.decodes(writer.ragged()))
        stages.append(writer.chunks())
        for place, load in zip(rng.permutation(len(LOADS)), LOADS, strict=True):
            stages.append(writer.load(load, PROMPTS[place % len(PROMPTS)]))
        if limits.outgrows:
            stages.append(writer.outgrowing())
        if limits.compacts:
            stages.append(writer.compacting())
        order = rng.permutation(len(stages))
        writer.design.passes.append([stages[place] for place in order if stages[place]])
    return writer.design


class _Writer:
    """Writes stages into one design, whose requests it makes."""

    def __init__(self, limits: Limits, rng: np.random.Generator) -> None:
        self.limits = limits
        self.rng = rng
        self.design = Design()
        self._emitted: list[int] = []
        self._leaving: list[int] = []
        self._levels = [size for size in DECODES if size < limits.max_seqs] + [limits.max_seqs]
        self._growth = min(len(self._levels) * _AT_A_LEVEL, limits.max_model_len // 2)
        self.longest = max(1, limits.max_model_len - self._growth - 2 * UNUSED)
        self.lengths = [*(n for n in CONTEXTS if n < 0.7 * self.longest), self.longest]

    def ragged(self) -> list[int]:
        """Context lengths as mixed as those of a trace."""
        shortest = CONTEXTS[0]
        longest = max(self.longest, shortest)
        drawn = log_uniform(shortest, longest, self.limits.max_seqs, self.rng)
        return [int(length) for length in drawn]

    # ---- stages

    def warm_up(self) -> Stage:
        """A chunk as large as the budget, then decodes, for as long as clocks take to rise."""
        tokens = min(self.limits.token_budget, self.longest)
        decodes = min(WARM_UP_DECODES, self._growth)
        request = self._request(tokens, decodes)
        turns = [Turn(chunks=((request, tokens),)), *[Turn(decodes=True)] * decodes]
        return [tuple(turn._replace(counts=False) for turn in turns)]

    def decodes(self, lengths: Sequence[int]) -> Stage:
        """Decodes of about these contexts, from one to all that fit, or back, and chunks beside."""
        members = self._members(lengths)
        levels = [level for level in self._levels if level < len(members)] + [len(members)]
        stage: Stage = []
        running = 0
        comes = self.rng.random() < 0.5
        for level in levels if comes else reversed(levels):
            if max(self._emitted[member] for member in members) + _AT_A_LEVEL > self._growth:
                break  # a context so short that they would end
            first = not stage
            lead = self._prefill(members[running:level] if comes else members if first else [])
            running = level
            self._leaving += [] if comes else members[level:]
            members = members if comes else members[:level]
            stage += self._at_level(members[:level], lead)
        return self._settled(stage)

    def chunks(self) -> Stage:
        """Chunks alone: of every size, after context, and several together."""
        budget = self.limits.token_budget
        most = min(budget, self.longest)
        cells = {(1, size, 0) for size in (*CHUNKS, most) if size <= most}
        after = {min(length, self.longest) for length in AFTER}
        cells |= {(1, size, length) for size in CHUNKS_AFTER for length in after}
        cells |= {
            (count, tokens // count, length)
            for count, tokens in TOGETHER_AFTER
            for length in after
            if tokens <= budget
        }
        cells |= {
            (count, max(1, min(tokens, budget) // count), 0)
            for count in TOGETHER
            for tokens in TOGETHER_TOKENS
            if count <= FEW or min(tokens, budget) >= TOKENS_OF_MANY * count
        }
        if budget > LEAD_TOKENS:
            cells |= {(count, min(tokens, budget) // count, 0) for count, tokens in TOGETHER_LARGE}
        ordered = sorted(cells)
        drawn = [ordered[place] for place in self.rng.permutation(len(ordered))]
        found = [self._chunk_batch(count, size, context, ()) for count, size, context in drawn]
        return self._settled([batch for batch in found if batch])

    def load(self, load: Load, prompts: tuple[int, int]) -> Stage:
        """Requests of such prompts that come and go."""
        limits = self.limits
        slots = LOADED * limits.slots
        output = max(1, min(OUTPUTS[1], limits.max_model_len // 4))
        prompt = max(1, limits.max_model_len - output - UNUSED)
        while prompt > 1 and self._held(prompt, output) > slots:
            prompt //= 2
        room = Room(limits.token_budget, limits.max_seqs, slots, prompt, output, self._held)
        turns = LoadWriter(load, prompts, room, self._request, self.rng).turns()
        starts = range(0, len(turns), TURNS_OF_A_BATCH)
        return self._settled([tuple(turns[n : n + TURNS_OF_A_BATCH]) for n in starts])

    def outgrowing(self) -> Stage:
        """Decodes that become longer than predicted, and are moved or grow in place."""
        longest = self.limits.max_model_len
        full = 1 << (min(OUTGROWS, longest // 4).bit_length() - 1)
        length, output = max(1, full - SPARE), min(self._growth, longest // 4)
        members = [
            self._request(length, output, predicted=1.0)
            for _ in range(min(16, self.limits.max_seqs))
        ]
        return self._settled([(*self._prefill(members), *[Turn(decodes=True)] * output)])

    def compacting(self) -> Stage:
        """Rooms side by side in a full cache; two are given up, and one that needs both comes."""
        limits = self.limits
        length = max(1, -(-limits.slots // limits.max_seqs))
        room = self._held(length, 0)
        count = min(limits.slots // room, limits.max_seqs - 1)
        both = 2 * room - UNUSED
        if count < 5 or both + UNUSED > limits.max_model_len:
            return []
        stage = []
        for first in (0, count // 2, count - 4):
            members = [self._request(length, 0) for _ in range(count)]
            large = self._request(both, 0)
            gone = (members[first], members[first + 2])
            fill = self._prefill(members, 1)
            stage.append(self._after_leaving(*fill, Turn(gone, ((large, 1),))))
            self._leaving += [request for request in (*members, large) if request not in gone]
        return self._settled(stage)

    # ---- batches

    def _at_level(self, members: Sequence[int], lead: Sequence[Turn]) -> Stage:
        """What is measured while these decode: they alone, chunks beside them, a swap."""
        settle, decode = Turn(decodes=True, counts=False), Turn(decodes=True)
        measured = [settle, *[decode] * MEASURED_DECODES, settle]
        measured = self._sometimes_cool(measured, len(members), self._room_beside(members))
        stage = [self._after_leaving(*lead, *measured)]
        full = [(count, (total - len(members)) // count) for count, total in FULL]
        kinds = [*MIXED, *full]
        for place in self.rng.permutation(len(kinds))[:MIXED_AT_A_LEVEL]:
            count, size = kinds[place]
            after = MIXED_AFTER[int(self.rng.integers(len(MIXED_AFTER)))]
            batch = self._chunk_batch(count, size, after, members)
            stage += [batch] if batch else []
        for member in members:
            self._emitted[member] += _AT_A_LEVEL
        last = members[-1]
        room = self._held(self.design.prompts[last], self._emitted[last])
        if len(members) > 1 and room <= self.limits.host_slots:
            swap = Turn(decodes=True, swap_out=last), Turn(decodes=True, swap_in=last)
            stage.append(self._after_leaving(*swap))
        return stage

    def _chunk_batch(self, count: int, size: int, context: int, members: Sequence[int]) -> Batch:
        """`count` chunks of `size` tokens, the first after `context`, and once more, beside
        `members`.

        Half of them end their prompts, and bring a token. Empty if there is no room.
        """
        limits = self.limits
        longest = limits.max_model_len - 1 - 2 * UNUSED
        size = min(size, longest)
        times = MEASURED_CHUNKS if MEASURED_CHUNKS * size <= longest else 1
        context = min(context, longest - times * size)
        ends = [context + times * size, *[times * size] * (count - 1)]
        room = self._room_beside(members) - sum(self._held(end + 1, UNUSED) for end in ends)
        if (
            size < 1
            or len(members) + count > limits.max_seqs
            or len(members) + count * size > limits.token_budget
            or room < 0
        ):
            return ()
        beyond = int(self.rng.integers(2))
        requests = [self._request(end + beyond, UNUSED) for end in ends]
        chunks = tuple((request, size) for request in requests)
        turn = Turn(chunks=chunks, decodes=bool(members))
        measured = self._sometimes_cool([turn] * times, len(members) + count, room)
        batch = self._after_leaving(*self._prefill(requests[:1], context), *measured)
        self._leaving += requests
        return batch

    def _sometimes_cool(self, turns: Sequence[Turn], running: int, room: int) -> list[Turn]:
        """Turns that are measured; before some of them the device has next to nothing to compute.

        Beside as many requests that are `running` there may be a seat and slots for one more.
        """
        tokens = min(COOLING, self.limits.max_model_len - 2 * UNUSED)
        is_drawn = bool(self.rng.random() < COOLED)
        if not is_drawn or running == self.limits.max_seqs or self._held(tokens + 1, 0) > room:
            return list(turns)
        request = self._request(tokens + 1, 0)
        cooling = [Turn(chunks=((request, 1),), counts=False)] * tokens
        first, *others = turns
        return [*cooling, first._replace(leave=(request,)), *others]

    def _room_beside(self, members: Sequence[int]) -> int:
        """Slots that these, grown to the end, leave free."""
        design, held = self.design, self.limits.held
        return self.limits.slots - sum(held(design.prompts[m], design.outputs[m]) for m in members)

    def _prefill(self, requests: Sequence[int], tokens: int | None = None) -> list[Turn]:
        """Turns that compute the first `tokens` of each, or its prompt, budget by budget."""
        turns: list[Turn] = []
        chunks: list[tuple[int, int]] = []
        most = room = min(self.limits.token_budget, LEAD_TOKENS)
        for request in requests:
            left = self.design.prompts[request] if tokens is None else tokens
            while left:
                chunk = min(left, room)
                chunks.append((request, chunk))
                left -= chunk
                room -= chunk
                if not room:
                    turns.append(Turn(chunks=tuple(chunks)))
                    chunks, room = [], most
        return [*turns, Turn(chunks=tuple(chunks))] if chunks else turns

    def _after_leaving(self, first: Turn, *others: Turn) -> Batch:
        """These turns, before which those go who were to."""
        gone = (*self._leaving, *first.leave)
        self._leaving = []
        return (first._replace(leave=gone), *others)

    def _settled(self, stage: Stage) -> Stage:
        """The stage without counting its first turn, in which all that ran before leaves, nor turns
        of decodes right before chunks that take the host long to launch."""
        self._leaving = []
        settled = []
        is_first = True
        for batch in stage:
            turns = list(batch)
            for place, turn in enumerate(turns):
                following = turns[place + 1].chunks if place + 1 < len(turns) else ()
                launched = sum(tokens for _, tokens in following)
                if is_first or (launched >= _LAUNCH and not turn.chunks):
                    turns[place] = turn._replace(counts=False)
                is_first = False
            settled.append(tuple(turns))
        return settled

    # ---- requests

    def _members(self, lengths: Sequence[int]) -> list[int]:
        """Requests of about these lengths, as many as the cache has room for, at least one."""
        members: list[int] = []
        taken = work = 0.0
        for length in lengths:
            factor = float(self.rng.uniform(1 - UNEVENNESS, 1 + UNEVENNESS))
            prompt = max(1, round(min(length * factor, self.longest)))
            taken += self._held(prompt, self._growth)
            work += prompt * (1 + prompt / 65536)
            if members and (taken > FILLED * self.limits.slots or work > STAGE_TOKENS):
                break
            members.append(self._request(prompt, self._growth))
        return members

    def _request(self, prompt: int, output: int, predicted: float = float("nan")) -> int:
        """A request of which `output` tokens are emitted at most."""
        design = self.design
        design.prompts.append(prompt)
        design.outputs.append(output + UNUSED)
        design.predicted.append(predicted)
        self._emitted.append(0)
        return len(design.prompts) - 1

    def _held(self, prompt: int, output: int) -> int:
        return self.limits.held(prompt, output + UNUSED)
