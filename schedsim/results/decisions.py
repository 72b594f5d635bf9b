"""`DecisionWriter`: every decision of a run, in the record format of the vLLM scheduler oracle."""

import json
from collections import deque
from typing import Any

from schedsim.request import Request
from schedsim.results.directory import RunDirectory
from schedsim.scheduler.batch import Batch, Completion, TransferKind
from schedsim.scheduler.scheduler import Scheduler


class DecisionWriter:
    """Streams decisions.jsonl.gz: a line with `meta`, then one record an iteration.

    A record has `step`, `arrived`, `scheduled` ([id, tokens, kind, computed before]),
    `total_tokens`, `preempted`, `free_after_schedule`, `sampled`, `finished`,
    `free_after_update`, `running` and `waiting` after the iteration, and `blocks`, the block
    tables of the scheduled requests. An iteration that copies blocks also has `swapped_out`,
    `swapped_in` or `moved`, [id, [[source block, target block], …]] each, one that computed a token
    in vain `discarded`. Ids are `r<id>`. With overlapped decisions, what a record says of the end
    of its iteration is seen after the next decision, as in vLLM's asynchronous scheduling.
    """

    def __init__(self, directory: RunDirectory, meta: dict[str, Any]) -> None:
        """Open the file and write `meta`.

        Raises:
            OutputError: the file cannot be written, here or in any other method.
        """
        self._stream = directory.open_gz("decisions.jsonl.gz")
        self._open: deque[tuple[dict[str, Any], dict[str, list[int]]]] = deque()
        self._write({"meta": meta})

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        """Note a decision, after `schedule` returned it."""
        entries = batch.expand()
        kv_cache = scheduler.kv_cache
        record = {
            "step": batch.iteration,
            "arrived": _names(arrived),
            "scheduled": [
                [_name(entry.request), entry.tokens, entry.kind, entry.context] for entry in entries
            ],
            "total_tokens": sum(entry.tokens for entry in entries),
            "preempted": _names(batch.preempted),
            "free_after_schedule": kv_cache.free_blocks,
        }
        for kind in TransferKind if batch.transfers else ():
            transfers = [t for t in batch.transfers if t.kind is kind]
            if transfers:
                record[str(kind)] = [[_name(t.request), t.pairs] for t in transfers]
        blocks = {
            _name(entry.request): list(kv_cache.block_table(entry.request)) for entry in entries
        }
        self._open.append((record, blocks))

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        """Write the record, right after `complete` and before the next decision."""
        record, blocks = self._open.popleft()
        assert record["step"] == completion.batch.iteration, "a batch ended before its turn"
        record |= {
            "sampled": _names(completion.sampled()),
            "finished": _names(completion.finished),
            "free_after_update": scheduler.kv_cache.free_blocks,
            "running": _names(scheduler.running),
            "waiting": _names(scheduler.waiting),
        }
        if completion.batch.discarded:
            record["discarded"] = _names(completion.batch.discarded)
        self._write({**record, "blocks": blocks})

    def close(self) -> None:
        """Complete the file; a decision that never ended is left out."""
        self._stream.close()

    def abort(self) -> None:
        """Drop the file."""
        self._stream.abort()

    def _write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record, separators=(",", ":")) + "\n")


def _name(request: Request) -> str:
    return f"r{request.id}"


def _names(requests: list[Request]) -> list[str]:
    return [_name(request) for request in requests]
