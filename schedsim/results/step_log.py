"""`StepLog`: one row an iteration, as columns; the only thing a backend appends to all the time."""

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


class StepLog:
    """The iterations of a run in the order in which they ran.

    A row says, for one iteration: when its batch was decided, began and ended (s);
    `last_arrival_seen`, the id of the latest request released before the decision, refused ones
    included (-1: none); `prefill_tokens` and `decode_requests` of the batch; `context_tokens`, the
    tokens that its decoding requests have in the cache at the start; `running`, the seats taken
    while it runs, padding members of a static batch included; `waiting`, the requests left in
    line; `free_blocks`, the blocks nobody holds at its end, before its finished requests give
    theirs back; `stored_tokens`, the KV slots that hold tokens while it runs; `preempted`, how many
    requests its decision preempted.
    """

    __slots__ = (
        "append",
        "context_tokens",
        "decided_at",
        "decode_requests",
        "end",
        "free_blocks",
        "last_arrival_seen",
        "preempted",
        "prefill_tokens",
        "running",
        "start",
        "stored_tokens",
        "waiting",
    )

    append: Callable[[float, float, float, int, int, int, int, int, int, int, int, int], None]
    """`append(decided_at, start, end, last_arrival_seen, prefill_tokens, decode_requests,
    context_tokens, running, waiting, free_blocks, stored_tokens, preempted)`; positional only."""

    def __init__(self) -> None:
        self.decided_at = array("d")
        self.start = array("d")
        self.end = array("d")
        self.last_arrival_seen = array("q")
        self.prefill_tokens = array("q")
        self.decode_requests = array("q")
        self.context_tokens = array("q")
        self.running = array("q")
        self.waiting = array("q")
        self.free_blocks = array("q")
        self.stored_tokens = array("q")
        self.preempted = array("q")
        self.append = self._bound_append()

    def __len__(self) -> int:
        return len(self.end)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A copy of one column as float64 or int64."""
        return np.array(getattr(self, name))

    def _bound_append(
        self,
    ) -> Callable[[float, float, float, int, int, int, int, int, int, int, int, int], None]:
        """`append` with the columns' own methods bound: it runs once an iteration."""
        add_decided_at, add_start, add_end = (
            self.decided_at.append,
            self.start.append,
            self.end.append,
        )
        add_last_arrival_seen = self.last_arrival_seen.append
        add_prefill_tokens = self.prefill_tokens.append
        add_decode_requests = self.decode_requests.append
        add_context_tokens = self.context_tokens.append
        add_running, add_waiting = self.running.append, self.waiting.append
        add_free_blocks = self.free_blocks.append
        add_stored_tokens = self.stored_tokens.append
        add_preempted = self.preempted.append

        def append(
            decided_at: float,
            start: float,
            end: float,
            last_arrival_seen: int,
            prefill_tokens: int,
            decode_requests: int,
            context_tokens: int,
            running: int,
            waiting: int,
            free_blocks: int,
            stored_tokens: int,
            preempted: int,
            /,
        ) -> None:
            add_decided_at(decided_at)
            add_start(start)
            add_end(end)
            add_last_arrival_seen(last_arrival_seen)
            add_prefill_tokens(prefill_tokens)
            add_decode_requests(decode_requests)
            add_context_tokens(context_tokens)
            add_running(running)
            add_waiting(waiting)
            add_free_blocks(free_blocks)
            add_stored_tokens(stored_tokens)
            add_preempted(preempted)

        return append
