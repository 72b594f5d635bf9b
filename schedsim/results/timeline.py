"""`TimelineWriter`: a run as Chrome trace events, to be opened in Perfetto."""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from schedsim.request import Request, Status
from schedsim.results.directory import RunDirectory
from schedsim.scheduler.batch import Batch, Completion
from schedsim.scheduler.scheduler import Scheduler

_ENGINE, _REQUESTS = 1, 2


@dataclass(slots=True)
class _Slice:
    """What a request is doing, and since when (ns)."""

    request: Request
    phase: str
    since: int


class TimelineWriter:
    """Streams timeline.json.gz: a track for the engine's iterations, one a request, counters.

    On a request's track the slices `queued`, `prefill`, `decode` and `preempted` follow each other
    without overlap; one rejected while it waits ends its last slice at the decision or the end of
    an iteration that shows it. Counters show free blocks, running and waiting requests after each
    decision, where its iteration begins.
    """

    def __init__(self, directory: RunDirectory) -> None:
        """Open the file.

        Raises:
            OutputError: the file cannot be written, here or in any other method.
        """
        self._stream = directory.open_gz("timeline.json.gz")
        self._open: dict[int, _Slice] = {}
        self._decided: deque[dict[str, int]] = deque()
        self._now = 0
        self._stream.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        self._stream.write(_metadata("process_name", _ENGINE, 0, "engine"))
        self._stream.write(",\n" + _metadata("thread_name", _ENGINE, 0, "iterations"))
        self._stream.write(",\n" + _metadata("process_name", _REQUESTS, 0, "requests"))

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        """Note a decision, after `schedule` returned it."""
        for request in arrived:
            label = f"request {request.id}: {request.prompt_tokens} prompt tokens"
            self._event(_metadata("thread_name", _REQUESTS, request.id, label))
            self._open[request.id] = _Slice(request, "queued", _nanoseconds(request.arrival))
        self._end_rejected(scheduler, _nanoseconds(batch.decided_at))
        self._decided.append(
            {
                "free blocks": scheduler.kv_cache.free_blocks,
                "running": scheduler.num_running,
                "waiting": len(scheduler.queue),
            }
        )

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        """Note that the batch ran from `start` to `end` (s), right after `complete`."""
        batch, begun, now = completion.batch, _nanoseconds(start), _nanoseconds(end)
        for request in batch.preempted:
            self._turn(request, "preempted", begun)
        for request in batch.admitted:
            self._turn(request, "prefill", begun)
        for name, value in self._decided.popleft().items():
            self._counter(name, begun, value)
        kind = "decode" if not batch.prefills else "mixed" if batch.decode_requests else "prefill"
        figures = {
            "iteration": batch.iteration,
            "prefill_tokens": batch.prefill_tokens,
            "decode_requests": batch.decode_requests,
            "decode_context": batch.decode_context,
        }
        self._slice(_ENGINE, 0, kind, begun, now, figures)
        for request in batch.first_tokens:
            self._turn(request, "decode", now)
        for request in completion.finished:
            self._turn(request, None, now)
        self._end_rejected(scheduler, now)
        self._now = now

    def close(self) -> None:
        """Complete the file; what a request is still doing ends with the last iteration."""
        for state in list(self._open.values()):
            self._turn(state.request, None, self._now, _status(state.request))
        self._stream.write("\n]}\n")
        self._stream.close()

    def abort(self) -> None:
        """Drop the file."""
        self._stream.abort()

    def _end_rejected(self, scheduler: Scheduler, now: int) -> None:
        """End what requests do that were rejected since the last look; O(1) if none was."""
        unfinished = scheduler.num_running - len(scheduler.padding)
        if len(self._open) == len(scheduler.queue) + unfinished:
            return
        for state in list(self._open.values()):
            if state.request.status is Status.REJECTED:
                self._turn(state.request, None, now, _status(state.request))

    def _turn(
        self, request: Request, phase: str | None, now: int, figures: dict[str, Any] | None = None
    ) -> None:
        """End what `request` is doing and begin `phase`, None for nothing; it may have ended."""
        state = self._open.pop(request.id, None)
        if state is None:
            return
        now = max(now, state.since)
        if now > state.since:
            self._slice(_REQUESTS, request.id, state.phase, state.since, now, figures)
        if phase is not None:
            self._open[request.id] = _Slice(request, phase, now)

    def _slice(
        self,
        process: int,
        track: int,
        name: str,
        begin: int,
        end: int,
        figures: dict[str, Any] | None,
    ) -> None:
        figures_text = f',"args":{json.dumps(figures)}' if figures else ""
        self._event(
            f'{{"ph":"X","pid":{process},"tid":{track},"name":"{name}",'
            f'"ts":{_microseconds(begin)},"dur":{_microseconds(end - begin)}{figures_text}}}'
        )

    def _counter(self, name: str, now: int, value: int) -> None:
        self._event(
            f'{{"ph":"C","pid":{_ENGINE},"tid":0,"name":"{name}","ts":{_microseconds(now)},'
            f'"args":{{"value":{value}}}}}'
        )

    def _event(self, text: str) -> None:
        self._stream.write(",\n" + text)


def _metadata(kind: str, process: int, track: int, label: str) -> str:
    event = {"ph": "M", "pid": process, "tid": track, "name": kind, "args": {"name": label}}
    return json.dumps(event, separators=(",", ":"))


def _status(request: Request) -> dict[str, Any]:
    return {"status": str(request.status)}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _microseconds(nanoseconds: int) -> str:
    """The unit of Chrome traces, as an exact decimal, so that neighbouring slices only touch."""
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"
