"""`conform`: another scheduler's recorded run, decided again by ours and compared.

The inputs come from the recording's `meta`, and nothing else: its records are only compared with.
"""

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from schedsim.content import Content
from schedsim.errors import ConfigError, ResultError
from schedsim.experiments.recording import RecordedRequest, RecordedSettings, Recording
from schedsim.memory import KVCache, make_kv_cache
from schedsim.output_limit import Outputs
from schedsim.policies import Policy
from schedsim.policies.loading import find_policy, make_policy
from schedsim.request import Request, Status
from schedsim.results.difference import BEFORE, Comparison, Difference, brief, differing_rows
from schedsim.scheduler import Batch, Scheduler
from schedsim.specs import parse_spec

Record = dict[str, Any]


def conform(
    recording: Recording, policy: str = "vllm", *, check_every: int | None = None
) -> Comparison:
    """Decide the recorded run again under the policy of the spec, until a record differs.

    Parameters that the spec does not give are those of the recording. With `check_every` N every
    invariant of the scheduler is asserted in each N-th iteration.

    Raises:
        ConfigError, PolicyError: the policy cannot be made, or not on paged memory.
        ResultError: the recording is damaged, or holds a request that can never run.
    """
    spec = recorded_spec(policy, recording.settings)
    replay = Replay(recording, make_policy(spec), check_every)
    file = recording.file
    iterations = scheduled = preemptions = 0
    before: deque[str] = deque(maxlen=BEFORE)
    difference = None
    recorded = (file.record(number, line) for number, line in file.lines())
    for theirs, ours in zip_longest(recorded, replay.records()):
        if theirs is None or theirs != ours:
            difference = Difference(iterations, list(differing_rows(theirs, ours)), list(before))
            break
        iterations += 1
        scheduled += len(theirs["scheduled"])
        preemptions += len(theirs["preempted"])
        before.append(brief(theirs))
    version = recording.settings.vllm
    headings = f"{file.name}\nvLLM {version}".rstrip(), f"schedsim\n{spec}"
    return Comparison(headings, iterations, scheduled, preemptions, [], difference)


def recorded_spec(text: str, settings: RecordedSettings) -> str:
    """The policy's spec `text`, with the recording's value for every parameter not given.

    Raises:
        ConfigError, PolicyError: no such policy, or the file of a user's cannot be read.
    """
    spec = parse_spec(text)
    known = list(inspect.signature(find_policy(spec.name)).parameters)
    given = {*spec.parameters, *(known[:1] if spec.value is not None else ())}
    taken = [
        f"{name}={value}"
        for name, value in settings.parameters().items()
        if name in known and name not in given
    ]
    return ",".join([text, *taken])


def make_recorded_memory(policy: Policy, settings: RecordedSettings, content: Content) -> KVCache:
    """The policy's own memory manager in the recording's sizes, caching as the recording says.

    Raises:
        ConfigError: it is not `paged`, whose blocks a recording names.
    """
    spec = parse_spec(policy.default_memory)
    if spec.name != "paged":
        raise ConfigError(
            f"policy {policy.name!r} lives on memory manager {spec.name!r} (default_memory), but "
            "the block tables of a recording are those of 'paged'"
        )
    parameters = {**spec.parameters, "prefix_caching": str(settings.enable_prefix_caching)}
    if settings.enable_prefix_caching:
        parameters["stale_keys"] = "true"
    text = ",".join([spec.name, *(f"{name}={value}" for name, value in parameters.items())])
    return make_kv_cache(text, settings.num_blocks, settings.block_size, content)


@dataclass(slots=True)
class _InFlight:
    """A decision whose batch has not ended: the batch, its record so far, who is in it."""

    batch: Batch
    record: Record
    blocks: dict[str, list[int]]
    members: list[Request]


class Replay:
    """Our scheduler on a recording's requests, in the recorder's order of calls.

    The clock counts iterations; gaps without a request are skipped. Asynchronously a batch ends
    after the next one is decided, and an empty one is a record too but never runs.
    """

    def __init__(
        self, recording: Recording, policy: Policy, check_every: int | None = None
    ) -> None:
        """`check_every` as for `conform`.

        Raises:
            ConfigError: the policy's memory manager is not `paged`.
            ResultError: a request's prompt is not what it says.
        """
        settings = recording.settings
        trace = recording.trace()
        content = Content.of(trace, Outputs(trace.output_tokens, trace.output_tokens))
        self.recording = recording
        self.check_every = check_every
        self.lag = int(settings.async_scheduling)
        self.scheduler = Scheduler(
            policy,
            make_recorded_memory(policy, settings, content),
            max_seqs=settings.max_num_seqs,
            token_budget=settings.max_num_batched_tokens,
            max_model_len=settings.max_model_len,
            decision_lag=self.lag,
        )
        self._arrived = 0
        self._ended = 0
        self._in_flight: deque[_InFlight] = deque()
        self._last_update: int | None = None

    def records(self) -> Iterator[Record]:
        """One record after another, as the recorder writes them; without end if nobody finishes.

        Raises:
            PolicyError: the policy raised.
            ResultError: a request can never run.
        """
        requests = self.recording.requests
        step = 0
        while self._ended < len(requests):
            skipped = 0
            if self._ended == self._arrived and requests[self._arrived].arrival_step > step:
                yield from self._drain(step)
                self._last_update = None
                skipped = requests[self._arrived].arrival_step - step
                step += skipped
            self._decide(step, skipped)
            if len(self._in_flight) > self.lag:
                yield self._end(step)
            step += 1
        yield from self._drain(step)

    def _drain(self, step: int) -> Iterator[Record]:
        while self._in_flight:
            yield self._end(step)

    def _decide(self, step: int, skipped: int) -> None:
        scheduler = self.scheduler
        arrived = self._take_arrivals(step)
        batch = scheduler.schedule(float(step))
        self._check(step)
        entries = batch.expand()
        record: Record = {
            "step": step,
            "arrived": arrived,
            "scheduled": [
                [*self._names([e.request]), e.tokens, e.kind, e.context] for e in entries
            ],
            "total_tokens": sum(entry.tokens for entry in entries),
            "preempted": self._names(batch.preempted),
            "free_after_schedule": scheduler.kv_cache.free_blocks,
        }
        if self.lag:
            record["update_of"] = self._last_update
        if skipped:
            record["idle_skip"] = skipped
        members = [entry.request for entry in entries]
        blocks = {
            self._name(request): list(scheduler.kv_cache.block_table(request))
            for request in members
        }
        self._in_flight.append(_InFlight(batch, record, blocks, members))

    def _take_arrivals(self, step: int) -> list[str]:
        requests = self.recording.requests
        arrived = []
        while self._arrived < len(requests) and requests[self._arrived].arrival_step <= step:
            self._add(self._arrived, requests[self._arrived])
            arrived.append(requests[self._arrived].id)
            self._arrived += 1
        return arrived

    def _add(self, row: int, given: RecordedRequest) -> None:
        context = self.recording.settings.max_model_len
        limit = min(given.max_tokens or given.output_len, context - given.prompt_len)
        arrival = float(given.arrival_step)
        request = Request(row, arrival, given.prompt_len, max(limit, 1), priority=given.priority)
        if not self.scheduler.add(request, given.output_len, arrival):
            raise ResultError(
                f"{self.recording.file.path}, line 1: meta, request {given.id!r} can never run "
                f"here: {request.reason}"
            )

    def _end(self, step: int) -> Record:
        scheduler = self.scheduler
        oldest = self._in_flight.popleft()
        record, batch = oldest.record, oldest.batch
        gone = [request for request in oldest.members if request.status is Status.FINISHED]
        sampled: list[Request] = []
        finished: list[Request] = []
        if not batch.is_empty:
            completion = scheduler.complete(batch, step + 0.5)
            sampled, finished = completion.sampled(), completion.finished
            self._check(step)
        self._ended += len(finished)
        record["sampled"] = self._names(sampled)
        record["finished"] = self._names(finished)
        record["free_after_update"] = scheduler.kv_cache.free_blocks
        record["running"] = self._names(scheduler.running)
        record["waiting"] = self._names(scheduler.waiting)
        if gone:
            record["discarded"] = self._names(gone)
        record["blocks"] = oldest.blocks
        self._last_update = record["step"]
        return record

    def _check(self, step: int) -> None:
        if self.check_every is not None and step % self.check_every == 0:
            self.scheduler.check()

    def _name(self, request: Request) -> str:
        return self.recording.requests[request.id].id

    def _names(self, requests: Sequence[Request]) -> list[str]:
        return [self._name(request) for request in requests]
