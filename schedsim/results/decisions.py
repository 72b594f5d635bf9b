"""`DecisionWriter`: every decision of a run, in the record format of the vLLM scheduler oracle."""

import json
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
    `swapped_in` or `moved`, [id, [[source block, target block], …]] each. Ids are `r<id>`.
    """

    def __init__(self, directory: RunDirectory, meta: dict[str, Any]) -> None:
        """Open the file and write `meta`.

        Raises:
            OutputError: the file cannot be written, here or in any other method.
        """
        self._stream = directory.open_gz("decisions.jsonl.gz")
        self._record: dict[str, Any] = {}
        self._blocks: dict[str, list[int]] = {}
        self._write({"meta": meta})

    def scheduled(
        self, scheduler: Scheduler, batch: Batch, arrived: list[Request], start: float
    ) -> None:
        """Note a decision, right after `schedule` returned it."""
        entries = batch.expand()
        kv_cache = scheduler.kv_cache
        self._record = {
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
                self._record[str(kind)] = [[_name(t.request), t.pairs] for t in transfers]
        self._blocks = {
            _name(entry.request): list(kv_cache.block_table(entry.request)) for entry in entries
        }

    def completed(self, scheduler: Scheduler, completion: Completion, end: float) -> None:
        """Write the record, right after `complete` and before the next decision."""
        iteration = completion.batch.iteration
        assert self._record["step"] == iteration, "a batch ended that was not announced"
        self._write(
            {
                **self._record,
                "sampled": _names(completion.sampled()),
                "finished": _names(completion.finished),
                "free_after_update": scheduler.kv_cache.free_blocks,
                "running": _names(scheduler.running),
                "waiting": _names(scheduler.waiting),
                "blocks": self._blocks,
            }
        )

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
