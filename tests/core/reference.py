"""Plain, slow schedulers written from the descriptions of their originals, not from our code.

Every request keeps its own numbers, nothing is lazy, every list is walked.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass
class Job:
    """A request: prompt and true output, what it emitted, how much of it has keys and values.

    `tokens` are those of prompt and output and `full` says how many blocks are listed as cached;
    both are of use with a prefix cache only.
    """

    id: int
    prompt: int
    output: int
    emitted: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    was_preempted: bool = False
    prefilled: bool = False
    tokens: list[int] = field(default_factory=list)
    full: int = 0

    @property
    def known(self) -> int:
        return self.prompt + self.emitted


class Decision(NamedTuple):
    """One iteration: (id, tokens, kind, context) in running order, victims, block tables."""

    scheduled: list[tuple[int, int, str, int]]
    preempted: list[int]
    blocks: dict[int, list[int]]
    free_blocks: int


class ReferenceScheduler(ABC):
    """The waiting line, the running list and the free queue, which is taken from the left.

    With a prefix cache `cached` lists (tokens up to its end, block) from the oldest to the newest.
    """

    has_prefix_cache = False

    def __init__(self, blocks: int, block_size: int, seats: int, budget: int) -> None:
        self.free = list(range(1, blocks + 1))
        self.total = blocks
        self.block_size = block_size
        self.seats = seats
        self.budget = budget
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.plan: dict[int, tuple[int, str, int]] = {}
        self.preempted: list[Job] = []
        self.cached: list[tuple[list[int], int]] = []

    def schedule(self) -> Decision:
        """Decide one iteration."""
        self.plan, self.preempted = {}, []
        self.decide()
        return Decision(
            [(job.id, *self.plan[job.id]) for job in self.running if job.id in self.plan],
            [job.id for job in self.preempted],
            {job.id: list(job.blocks) for job in self.running if job.id in self.plan},
            len(self.free),
        )

    @abstractmethod
    def decide(self) -> None:
        """Fill `plan` and `preempted`."""

    def complete(self) -> tuple[list[int], list[int]]:
        """Run the plan: who got a token, who finished."""
        sampled, finished = [], []
        for job in list(self.running):
            if job.id not in self.plan:
                continue
            job.computed += self.plan[job.id][0]
            if job.computed == job.known:
                job.emitted += 1
                job.prefilled = True
                sampled.append(job.id)
                if job.emitted == job.output:
                    finished.append(job.id)
                    self.running.remove(job)
                    self.give_back(job)
        return sampled, finished

    def blocks_for(self, tokens: int) -> int:
        return (tokens + self.block_size - 1) // self.block_size

    def missing(self, job: Job, tokens: int) -> int:
        """Blocks that `job` needs beside its own to hold `tokens` tokens in all."""
        return max(0, self.blocks_for(tokens) - len(job.blocks))

    def take(self, job: Job, count: int) -> None:
        assert count <= len(self.free)
        for _ in range(count):
            block = self.free.pop(0)
            self.cached = [entry for entry in self.cached if entry[1] != block]
            job.blocks.append(block)

    def give_back(self, job: Job) -> None:
        """Tail first: what is not cached to the front of the queue as a group, the rest behind."""
        others = [block for other in self.running if other is not job for block in other.blocks]
        cached = [entry[1] for entry in self.cached]
        free = [block for block in reversed(job.blocks) if block not in others]
        front = [block for block in free if block not in cached]
        self.free = front + self.free + [block for block in free if block in cached]
        job.blocks, job.full = [], 0

    def find(self, job: Job) -> list[int]:
        """The oldest cached blocks that `job` begins with; its last token is left out."""
        found: list[int] = []
        while (len(found) + 1) * self.block_size < job.known:
            prefix = job.tokens[: (len(found) + 1) * self.block_size]
            block = next((block for tokens, block in self.cached if tokens == prefix), None)
            if block is None:
                break
            found.append(block)
        return found

    def missing_to_admit(self, job: Job, tokens: int) -> int:
        """Free blocks that go when `job`, which waits, gets room for `tokens` tokens."""
        found = self.find(job)
        return self.blocks_for(tokens) - len([b for b in found if b not in self.free])

    def put_in_plan(self, job: Job, tokens: int, kind: str) -> None:
        """Plan `tokens` tokens; the blocks that they fill are cached from now on."""
        self.plan[job.id] = (tokens, kind, job.computed)
        while self.has_prefix_cache and (job.full + 1) * self.block_size <= job.computed + tokens:
            end = (job.full + 1) * self.block_size
            self.cached.append((job.tokens[:end], job.blocks[job.full]))
            job.full += 1

    def preempt(self, job: Job) -> None:
        """By recompute; back to the front of the line."""
        self.running.remove(job)
        self.give_back(job)
        job.computed = 0
        job.was_preempted = True
        job.prefilled = False
        self.plan.pop(job.id, None)
        self.waiting.insert(0, job)
        self.preempted.append(job)

    def admit(self, tokens: int, reserve: int) -> None:
        """The head of the line, with a chunk of `tokens` and blocks for `reserve`."""
        job = self.waiting.pop(0)
        job.blocks = self.find(job)
        job.full = len(job.blocks)
        job.computed = job.full * self.block_size
        self.free = [block for block in self.free if block not in job.blocks]
        self.take(job, self.missing(job, reserve))
        self.running.append(job)
        self.put_in_plan(job, tokens, "resume" if job.was_preempted else "new")


class ReferenceVLLM(ReferenceScheduler):
    """vLLM v1, synchronous, first come first served."""

    def __init__(
        self,
        blocks: int,
        block_size: int,
        seats: int,
        budget: int,
        whole_sequence: bool,
        watermark: float,
        threshold: int = 0,
    ) -> None:
        """`threshold` caps one request's chunk unless it is alone; 0 is no cap."""
        super().__init__(blocks, block_size, seats, budget)
        self.whole_sequence = whole_sequence
        self.threshold = threshold
        self.watermark_blocks = int(watermark * (blocks + 1))

    def decide(self) -> None:
        left = self.budget
        cap = self.budget
        if self.threshold and len(self.running) + len(self.waiting) > 1:
            cap = self.threshold
        index = 0
        while index < len(self.running) and left > 0:
            job = self.running[index]
            tokens = min(job.known - job.computed, cap, left)
            while self.missing(job, job.computed + tokens) > len(self.free):
                victim = self.running[-1]
                self.preempt(victim)
                if victim is job:
                    break
            if job not in self.running:
                break
            self.take(job, self.missing(job, job.computed + tokens))
            self.put_in_plan(job, tokens, "run")
            left -= tokens
            index += 1
        if self.preempted:
            return
        while self.waiting and left > 0 and len(self.running) < self.seats:
            job = self.waiting[0]
            found = len(self.find(job)) * self.block_size
            tokens = min(job.known - found, cap, left)
            spare = self.watermark_blocks if self.running else 0
            tested = job.known if self.whole_sequence else found + tokens
            if self.missing_to_admit(job, tested) + spare > len(self.free):
                break
            self.admit(tokens, found + tokens)
            left -= tokens


class ReferenceSarathi(ReferenceScheduler):
    """Sarathi-Serve: decodes, unfinished prefills, new requests that get their whole prompt."""

    def __init__(
        self, blocks: int, block_size: int, seats: int, chunk_size: int, watermark: float
    ) -> None:
        super().__init__(blocks, block_size, seats, chunk_size)
        self.watermark_blocks = int(watermark * blocks)

    def decide(self) -> None:
        used = 0
        remaining = list(self.running)
        prefills = []
        while remaining:
            job = remaining.pop(0)
            if not job.prefilled:
                prefills.append(job)
                continue
            while not self.free:
                victim = remaining.pop() if remaining else job
                self.preempt(victim)
                if victim is job:
                    break
            if job not in self.running:
                continue
            self.take(job, self.missing(job, job.known))
            self.put_in_plan(job, 1, "run")
            used += 1
        for job in prefills:
            tokens = min(job.known - job.computed, self.budget - used)
            if job in self.running and tokens > 0:
                self.put_in_plan(job, tokens, "run")
                used += tokens
        while self.waiting and used < self.budget and len(self.running) < self.seats:
            job = self.waiting[0]
            if self.missing_to_admit(job, job.known) + self.watermark_blocks > len(self.free):
                break
            found = len(self.find(job)) * self.block_size
            tokens = min(job.known - found, self.budget - used)
            self.admit(tokens, job.known)
            used += tokens


class ReferenceVLLMv0(ReferenceScheduler):
    """vLLM v0: prefill only if anyone can be admitted, else everything decodes."""

    def __init__(
        self, blocks: int, block_size: int, seats: int, budget: int, watermark: float
    ) -> None:
        super().__init__(blocks, block_size, seats, budget)
        self.watermark_blocks = int(watermark * blocks)

    def decide(self) -> None:
        used = 0
        while self.waiting and len(self.running) < self.seats:
            job = self.waiting[0]
            tokens = job.known - len(self.find(job)) * self.block_size
            if used + tokens > self.budget and used:
                break
            if len(self.free) - self.missing_to_admit(job, job.known) < self.watermark_blocks:
                break
            self.admit(tokens, job.known)
            used += tokens
            if used >= self.budget:
                break
        if used:
            return
        remaining = list(self.running)
        while remaining:
            job = remaining.pop(0)
            while not self.free:
                victim = remaining.pop() if remaining else job
                self.preempt(victim)
                if victim is job:
                    break
            if job in self.running:
                self.take(job, self.missing(job, job.known))
                self.put_in_plan(job, 1, "run")
