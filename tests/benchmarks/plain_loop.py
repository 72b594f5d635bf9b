"""A plain loop over iterations, as one writes it first: what `policy_speed.py` compares with.

Continuous batching first come, first served, with chunked prefill, blocks and preemption of the
latest admitted by recompute; no policies, no block ids, no records but each request's times. One
pass over the running list an iteration.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from schedsim.costs.linear import load_linear
from schedsim.scheduler.batch import BatchShape
from schedsim.traces.trace import Trace


@dataclass(slots=True)
class _Request:
    prompt: int
    output: int
    arrival: float
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    first: float = 0.0
    end: float = 0.0


def plain_loop(
    trace: Trace, *, blocks: int, block_size: int = 16, max_seqs: int, token_budget: int
) -> tuple[int, float]:
    """Output tokens of a run under the closed-form step time, and its makespan (s)."""
    cost = load_linear("vidur-closed-form")
    columns = (trace.prompt_tokens, trace.output_tokens, trace.arrival)
    rows = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    arriving = deque(_Request(*row) for row in rows)
    waiting: deque[_Request] = deque()
    running: list[_Request] = []
    free, now, emitted = blocks, 0.0, 0

    def plan(request: _Request, tokens: int, shape: BatchShape) -> bool:
        nonlocal free
        need = -(-(request.computed + tokens) // block_size) - request.blocks
        if need > free:
            return False
        free -= need
        request.blocks += need
        known = request.prompt + request.generated
        if known - request.computed == 1 and request.generated:
            shape.decode_requests += 1
            shape.decode_context += known
        else:
            shape.prefill_tokens += tokens
            shape.prefill_attention += tokens * (request.computed + tokens / 2)
        return True

    while arriving or waiting or running:
        if not running and not waiting:
            now = max(now, arriving[0].arrival)
        while arriving and arriving[0].arrival <= now:
            waiting.append(arriving.popleft())
        left, shape, preempted = token_budget, BatchShape(), False
        sampled: list[_Request] = []
        place = 0
        while place < len(running) and left > 0:
            request = running[place]
            tokens = min(request.prompt + request.generated - request.computed, left)
            while not plan(request, tokens, shape):
                victim = running.pop()
                free += victim.blocks
                victim.blocks = victim.computed = 0
                waiting.appendleft(victim)
                preempted = True
                if victim is request:
                    break
            else:
                left -= tokens
                request.computed += tokens
                if request.computed == request.prompt + request.generated:
                    sampled.append(request)
                place += 1
        while waiting and left > 0 and len(running) < max_seqs and not preempted:
            request = waiting[0]
            known = request.prompt + request.generated
            if -(-known // block_size) > free:
                break
            tokens = min(known, left)
            plan(request, tokens, shape)
            running.append(waiting.popleft())
            left -= tokens
            request.computed = tokens
            if tokens == known:
                sampled.append(request)
        now += cost.seconds(shape)
        for request in sampled:
            request.generated += 1
            emitted += 1
            if request.generated == 1:
                request.first = now
            if request.generated == request.output:
                request.end = now
                free += request.blocks
                running.remove(request)
    return emitted, now
