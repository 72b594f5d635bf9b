"""`AllocatorChecks`: what `AllocatorMachine` knows of its engine and asserts after every step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, NamedTuple, NoReturn

from hypothesis.stateful import RuleBasedStateMachine, invariant

from schedsim.memory.base import KVCache
from schedsim.request import Request
from schedsim.scheduler.decode_set import DecodeSet
from schedsim.testing.paper import Paper
from schedsim.testing.violations import AllocatorViolation, Enough


class Books(NamedTuple):
    """What a refusal must leave as it was."""

    free_blocks: int
    num_swapped: int
    tables: dict[int, tuple[int, ...]]
    needy: list[int]


@dataclass(slots=True)
class Failures:
    """The shortest failure seen, and how many attempts were made to find a shorter one."""

    shortest: AllocatorViolation | None = None
    num_steps: int = 0
    attempts: int = 0
    max_shrinks: int = 300

    def add(self, violation: AllocatorViolation, num_steps: int) -> None:
        """Note a failure after `num_steps`."""
        if self.shortest is None or num_steps <= self.num_steps:
            self.shortest, self.num_steps = violation, num_steps

    def attempt(self) -> None:
        """Count a run that begins; after `max_shrinks` that follow a failure none does."""
        if self.shortest is not None:
            self.attempts += 1
            if self.attempts > self.max_shrinks:
                raise Enough


def told(body: Callable[..., None]) -> Callable[..., None]:
    """A method of the machine, with what a manager raises told like what it does wrong."""

    @wraps(body)
    def telling(machine: "AllocatorChecks", **drawn: Any) -> None:
        try:
            body(machine, **drawn)
        except AllocatorViolation:
            raise
        except Exception as error:  # a manager is foreign code: anything may come out of it
            machine._fail(f"raises {type(error).__name__}: {error}", error)

    return telling


class AllocatorChecks(RuleBasedStateMachine):
    """The requests around a memory manager, by where they stand, and what must hold of them.

    `waiting` hold nothing; of them `swapped` have the given host blocks. `running` hold blocks; of
    them `held` decode but not now, and `planned` prefill up to the given token in the iteration
    that is being planned. `padding` have finished and keep their blocks for a while. `decodes` are
    who decodes in the planned iteration, None until that is decided. `tokens` is what each request
    says, prompt and output, and `paper` what every slot holds.
    """

    failures: ClassVar[Failures]
    contiguous: ClassVar[bool] = False
    fragments: ClassVar[bool] = False

    kv_cache: KVCache
    paper: Paper
    decode_set: DecodeSet
    tokens: list[list[int]]
    waiting: list[Request]
    running: list[Request]
    held: list[Request]
    padding: list[Request]
    swapped: dict[int, list[int]]
    planned: dict[int, int]
    decodes: list[Request] | None
    steps: list[str]

    @invariant()
    def books_hold(self) -> None:
        if hasattr(self, "kv_cache"):
            self._expect_books()

    @told
    def _expect_books(self) -> None:
        self._expect_conservation()
        self._expect_slots()
        try:
            self.kv_cache.check()
        except AssertionError as error:
            self._fail(f"check() says: {error}")

    def _expect_conservation(self) -> None:
        kv_cache, tables = self.kv_cache, self._tables()
        for request_id, table in tables.items():
            if not are_ids(table, kv_cache.total_blocks):
                self._fail(
                    f"r{request_id} holds {list(table)}: ids are different ones from 1 to "
                    f"{kv_cache.total_blocks}, 0 is the null block"
                )
            if self.contiguous and list(table) != list(range(table[0], table[0] + len(table))):
                self._fail(f"r{request_id} holds {list(table)}, not a contiguous range")
        self._expect_owners(tables)
        for request in self.waiting:
            if kv_cache.block_table(request):
                self._fail(f"{name_of(request)} waits, but holds blocks")
        held = {block for table in tables.values() for block in table}
        if kv_cache.free_blocks != kv_cache.total_blocks - len(held):
            self._fail(
                f"{kv_cache.free_blocks} blocks are free and {len(held)} held, "
                f"of {kv_cache.total_blocks}"
            )
        if kv_cache.num_swapped != len(self.swapped):
            self._fail(f"num_swapped is {kv_cache.num_swapped}, {len(self.swapped)} are")
        self._expect_use(tables, len(held))

    def _expect_use(self, tables: dict[int, tuple[int, ...]], num_held: int) -> None:
        """What is reported of the slots adds up to those of the held blocks."""
        size, stored = self.kv_cache.block_size, dict[int, int]()
        for request in [*self.running, *self.padding]:
            left = request.num_computed_tokens
            for block in tables[request.id]:
                stored[block] = max(stored.get(block, 0), min(left, size))
                left -= min(left, size)
        use = self.kv_cache.use(sum(stored.values()))
        free = (self.kv_cache.total_blocks - num_held) * size
        wrong = min(use) < 0 or use.external_waste > free
        if wrong or use.stored + use.reserved + use.internal_waste != num_held * size:
            self._fail(f"{use}; {num_held * size} slots are held and {free} free")

    def _expect_slots(self) -> None:
        """Every computed or planned token has a slot, and who lacks the next one is needy."""
        size = self.kv_cache.block_size
        for request in [*self.running, *self.padding]:
            room = len(self.kv_cache.block_table(request)) * size
            computed = max(request.num_computed_tokens, self.planned.get(request.id, 0))
            if room < computed:
                self._fail(f"{name_of(request)} has {room} slots for {computed} tokens")
        needy = [
            request.id
            for request in self.decode_set.members
            if len(self.kv_cache.block_table(request)) * size == request.num_computed_tokens
        ]
        told = [request.id for request in self.kv_cache.needy]
        if told != needy:
            self._fail(f"needy are {told}, those without a slot {needy}")

    def _read_everything(self) -> None:
        for request in [*self.running, *self.padding]:
            stop = request.num_computed_tokens
            table = self.kv_cache.block_table(request)
            expected = self.tokens[request.id][:stop]
            read = self.paper.read(table, stop)
            if read != expected:
                place = next(i for i in range(stop) if read[i] != expected[i])
                what = "no token" if read[place] is None else "another token"
                self._fail(
                    f"{name_of(request)} reads {what} at place {place}, in block "
                    f"{list(table)[place // self.kv_cache.block_size]} of {list(table)}"
                )

    # ---- small parts

    def _tables(self) -> dict[int, tuple[int, ...]]:
        holders = [*self.running, *self.padding]
        return {r.id: tuple(self.kv_cache.block_table(r)) for r in holders}

    def _books(self) -> Books:
        kv_cache = self.kv_cache
        return Books(
            kv_cache.free_blocks,
            kv_cache.num_swapped,
            self._tables(),
            [request.id for request in kv_cache.needy],
        )

    def _expect_key_error(self, request: Request, why: str) -> None:
        before = self._books()
        try:
            self.kv_cache.release(request)
        except KeyError:
            self._expect_unchanged(before, "a release of nothing")
            return
        self._fail(f"releases {name_of(request)}, {why}, without a KeyError")

    def _expect_refusal(self, before: Books, need: int, what: str) -> None:
        self._expect_unchanged(before, what)
        if need <= before.free_blocks and not self.fragments:
            self._fail(
                f"{what} refuses though it takes {need} blocks and {before.free_blocks} are free"
            )

    def _expect_unchanged(self, before: Books, what: str) -> None:
        after = self._books()
        for name, old, new in zip(before._fields, before, after, strict=True):
            if old != new:
                self._fail(f"{what} was refused but changed {name} from {old} to {new}")
        if self.kv_cache.moves_blocks and self.kv_cache.take_moves():
            self._fail(f"{what} was refused but moved blocks")

    def _expect_taken(self, before: Books, need: int) -> None:
        taken = before.free_blocks - self.kv_cache.free_blocks
        if taken != need:
            self._fail(f"blocks_to_admit says {need}, {taken} were taken")

    def _expect_owners(self, tables: dict[int, tuple[int, ...]]) -> None:
        """No block has two owners unless both have the same tokens up to its end."""
        owners: dict[int, tuple[int, int]] = {}
        size = self.kv_cache.block_size
        for request_id, table in tables.items():
            for index, block in enumerate(table):
                if block not in owners:
                    owners[block] = (request_id, index)
                    continue
                other, place = owners[block]
                end = (index + 1) * size
                own, others = self.tokens[request_id][:end], self.tokens[other][:end]
                if place != index or own != others or not self.kv_cache.has_prefix_cache:
                    self._fail(
                        f"block {block} has two owners, r{other} and r{request_id}, "
                        "which share no prefix there"
                    )

    def _note(self, step: str) -> None:
        self.steps.append(step)

    def _fail(self, problem: str, cause: Exception | None = None) -> NoReturn:
        manager = type(self.kv_cache).__name__
        told = "\n".join(f"  {step}" for step in self.steps)
        violation = AllocatorViolation(f"{manager}: {problem}\nafter these steps:\n{told}")
        type(self).failures.add(violation, len(self.steps))
        raise violation from cause


def are_ids(blocks: "tuple[int, ...] | list[int]", last: int) -> bool:
    """Whether these are different ids from 1 to `last`."""
    return len(set(blocks)) == len(blocks) and all(1 <= block <= last for block in blocks)


def name_of(request: Request) -> str:
    """What a request is called in messages."""
    return f"r{request.id}"
