"""`PaperDevice`: an executor that keeps the tokens themselves where a real one keeps their KV."""

from collections.abc import Sequence

from schedsim.content import Content
from schedsim.request import Request
from schedsim.scheduler import Batch, Completion, Scheduler
from schedsim.scheduler.batch import TransferKind

VOCAB = 2**62


class PaperDevice:
    """Observes a run, writes what every batch computes, and asserts what it reads.

    As on a device, all tokens of a batch are written before any is read. A token is read at the
    slot that the block table gives for its place, and must be the one that the content declares.
    """

    def __init__(self, content: Content, block_size: int) -> None:
        self.content = content
        self.block_size = block_size
        self.slots: dict[tuple[int, int], int] = {}
        self.host: dict[tuple[int, int], int] = {}
        self.found_tokens = 0

    def tokens(self, request: Request, start: int, stop: int) -> list[int]:
        return self.content.token_ids(request.id, start, stop, VOCAB).tolist()

    def write(self, table: Sequence[int], start: int, tokens: list[int]) -> None:
        for place, token in enumerate(tokens, start):
            self.slots[table[place // self.block_size], place % self.block_size] = token

    def read(self, table: Sequence[int], stop: int) -> list[int | None]:
        return [
            self.slots.get((table[place // self.block_size], place % self.block_size))
            for place in range(stop)
        ]

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        for transfer in batch.transfers:
            source = self.host if transfer.kind is TransferKind.SWAP_IN else self.slots
            target = self.host if transfer.kind is TransferKind.SWAP_OUT else self.slots
            read = {
                (to, place): source.get((origin, place))
                for origin, to in transfer.pairs
                for place in range(self.block_size)
            }
            for slot, token in read.items():
                target.pop(slot, None)
                if token is not None:
                    target[slot] = token
        entries = batch.expand()
        tables = [scheduler.kv_cache.block_table(entry.request) for entry in entries]
        for entry, table in zip(entries, tables, strict=True):
            stop = entry.context + entry.tokens
            self.write(table, entry.context, self.tokens(entry.request, entry.context, stop))
            if entry.kind != "run":
                self.found_tokens += entry.context
        for entry, table in zip(entries, tables, strict=True):
            stop = entry.context + entry.tokens
            assert self.read(table, stop) == self.tokens(entry.request, 0, stop)

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        """Nothing to do."""
