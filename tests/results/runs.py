"""Small runs of the real scheduler with a list per token, to hold the metrics against."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from schedsim.errors import PolicyError
from schedsim.memory import PagedKVCache
from schedsim.policies import VLLM, Policy, Sarathi, Static, VLLMv0
from schedsim.request import Request
from schedsim.results import SLO, RequestLog, RunRecord, StepLog
from schedsim.scheduler import Scheduler
from schedsim.traces.trace import Trace, TraceSource

POLICIES: tuple[Callable[[], Policy], ...] = (
    VLLM,
    VLLMv0,
    lambda: Sarathi(chunk_size=8),
    lambda: Static(batch_size=3),
)


@dataclass
class Run:
    """A record, and what the metrics must not need: the time of every token by request."""

    record: RunRecord
    token_times: dict[int, list[float]] = field(default_factory=dict)

    def gaps(self, request_id: int) -> list[float]:
        times = self.token_times.get(request_id, [])
        return [later - sooner for sooner, later in pairwise(times)]


def make_trace(
    arrivals: list[float],
    prompts: list[int],
    outputs: list[int],
    tenants: list[int] | None = None,
    **columns: np.ndarray,
) -> Trace:
    count = len(arrivals)
    return Trace(
        arrival=np.array(arrivals, dtype=np.float64),
        prompt_tokens=np.array(prompts, dtype=np.int32),
        output_tokens=np.array(outputs, dtype=np.int32),
        source=TraceSource("small", "test", rows_read=count),
        tenant=None if tenants is None else np.array(tenants, dtype=np.int64),
        tenant_names=() if tenants is None else ("ann", "bob", "cem"),
        **columns,
    )


def serve(
    trace: Trace,
    policy: Policy,
    durations: Callable[[int], float],
    *,
    blocks: int = 20,
    block_size: int = 4,
    seats: int = 4,
    budget: int = 16,
    slo: SLO | None = None,
    stop_after: int | None = None,
    observers: tuple[object, ...] = (),
) -> Run:
    """Run `trace`; iteration i takes `durations(i)` seconds. `stop_after` cuts the run short."""
    scheduler = Scheduler(
        policy,
        PagedKVCache(blocks, block_size),
        max_seqs=seats,
        token_budget=budget,
        max_model_len=256,
    )
    steps, requests, last_seen = StepLog(), {}, -1
    run_times: dict[int, list[float]] = {}
    now, next_row, arrived = 0.0, 0, []
    interrupted = None
    while True:
        while next_row < len(trace) and trace.arrival[next_row] <= now:
            request = _request(trace, next_row)
            request.released = now
            requests[next_row] = request
            last_seen = next_row
            if scheduler.add(request, int(trace.output_tokens[next_row]), now):
                arrived.append(request)
            next_row += 1
        if stop_after is not None and len(steps) >= stop_after:
            interrupted = "Ctrl-C"
            break
        batch = scheduler.schedule(now) if scheduler.running or scheduler.waiting else None
        if batch is None or batch.is_empty:
            wake = scheduler.wake_at() if batch is not None else None
            times = [float(trace.arrival[next_row])] if next_row < len(trace) else []
            times += [wake] if wake is not None else []
            if batch is None and not times:
                break
            assert times or batch is not None, "stuck"
            now = min(times) if times else now
            continue
        start, end = now, now + durations(len(steps))
        for observer in observers:
            observer.scheduled(scheduler, batch, arrived)
        arrived = []
        running, waiting = scheduler.num_running, len(scheduler.queue)
        free_blocks = scheduler.kv_cache.free_blocks
        held = scheduler.running + scheduler.padding
        stored = sum(request.num_computed_tokens for request in held)
        try:
            completion = scheduler.complete(batch, end)
        except PolicyError as error:
            interrupted, now = str(error), end
            break
        sampled = completion.sampled()
        for request in sampled:
            run_times.setdefault(request.id, []).append(end)
        for observer in observers:
            observer.completed(scheduler, completion, start, end)
        steps.append(batch, start, end, last_seen, running, waiting, free_blocks, stored)
        now = end
    tokens = scheduler.finish_log()
    log = RequestLog(requests.values())
    record = RunRecord(
        trace, log, steps, tokens, blocks, block_size, now, slo=slo, interrupted=interrupted
    )
    return Run(record, run_times)


def _request(trace: Trace, row: int) -> Request:
    return Request(
        row,
        float(trace.arrival[row]),
        int(trace.prompt_tokens[row]),
        int(trace.output_tokens[row]),
        tenant=-1 if trace.tenant is None else int(trace.tenant[row]),
    )


@st.composite
def runs(
    draw: st.DrawFn,
    slo: SLO | None = None,
    with_tenants: bool = False,
    observers: tuple[object, ...] = (),
) -> Run:
    """Random small runs, some with preemptions, rejections, or cut short."""
    count = draw(st.integers(1, 10))
    lengths = st.lists(st.integers(1, 40), min_size=count, max_size=count)
    waits = draw(st.lists(st.sampled_from([0.0, 0.3, 1.7]), min_size=count, max_size=count))
    tenants = st.lists(st.integers(-1, 2), min_size=count, max_size=count)
    trace = make_trace(
        list(np.cumsum([0.0, *waits[1:]])),
        draw(lengths),
        draw(lengths),
        draw(tenants) if with_tenants else None,
    )
    pace = draw(st.lists(st.sampled_from([0.1, 0.25, 1 / 3, 1.0]), min_size=1, max_size=7))
    return serve(
        trace,
        draw(st.sampled_from(POLICIES))(),
        lambda iteration: pace[iteration % len(pace)],
        blocks=draw(st.integers(8, 24)),
        seats=draw(st.integers(1, 5)),
        slo=slo,
        stop_after=draw(st.none() | st.integers(0, 40)),
        observers=observers,
    )
