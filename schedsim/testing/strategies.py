"""Hypothesis strategies for traces, capacities and settings; they shrink to small, plain ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from schedsim.config import RunSettings, make_settings
from schedsim.memory import make_manager
from schedsim.traces.trace import FloatColumn, IntColumn, PromptBlocks, Trace, TraceSource

STEP_TIME = "linear:vidur-closed-form"
"""The step time of all settings: 6 ms an iteration and a little for each token."""

MEMORIES = ("paged", "paged,prefix_caching=true")

_GAPS_S = (0.0, 0.0, 0.002, 0.0, 0.1, 20.0)
"""Between two arrivals: none, less than an iteration, some iterations, longer than all work."""

_CHAIN_BLOCK = 4
_MAX_DEPTH = 2


class _Row(NamedTuple):
    """One request as it is drawn; the smallest value of each field is the plainest."""

    gap: float
    prompt: int
    output: int
    spare: int
    stem: int
    stem_blocks: int
    parents_back: int
    tenant: int
    priority: int
    has_slo: bool
    predicted: int


def traces(
    *,
    max_requests: int = 8,
    max_prompt: int = 40,
    max_output: int = 30,
    spare_limits: bool = True,
    shared_prefixes: bool = False,
    follow_ups: bool = False,
    tenants: int = 1,
    priorities: bool = False,
    slos: bool = False,
    predictions: bool = False,
) -> st.SearchStrategy[Trace]:
    """Traces of up to `max_requests` requests, in bursts and with idle gaps between them.

    Output limits are there always, above the true length where `spare_limits`. `shared_prefixes`
    lets prompts begin with one of two stems, `follow_ups` makes requests wait for an earlier one
    and begin with its whole conversation, `tenants` is their number, and `priorities`, `slos` and
    `predictions` fill these columns. A column without anything to tell is left out.
    """
    last = max_requests - 1
    row = st.builds(
        _Row,
        gap=st.sampled_from(_GAPS_S),
        prompt=st.integers(1, max_prompt),
        output=st.integers(1, max_output),
        spare=st.integers(0, max_output) if spare_limits else st.just(0),
        stem=st.integers(0, 2 if shared_prefixes else 0),
        stem_blocks=st.integers(1, -(-max_prompt // _CHAIN_BLOCK)),
        parents_back=st.integers(0, last if follow_ups else 0),
        tenant=st.integers(0, tenants - 1),
        priority=st.integers(0, 3 if priorities else 0),
        has_slo=st.booleans() if slos else st.just(False),
        predicted=st.integers(0, 2 * max_output if predictions else 0),
    )
    return st.lists(row, min_size=1, max_size=max_requests).map(_trace_of)


class Capacity(NamedTuple):
    """How much memory there is: KV blocks of `block_size` token slots, and blocks on the host."""

    blocks: int
    block_size: int
    host_blocks: int


@st.composite
def capacities(
    draw: st.DrawFn,
    trace: Trace | None = None,
    *,
    max_blocks: int = 40,
    block_sizes: Sequence[int] = (4, 1, 3, 16),
    host_tier: bool = True,
) -> Capacity:
    """Capacities between what `trace` needs in all, which is the plainest, and its largest request.

    A little less than that is drawn, too: then requests are rejected. Without a trace there are
    1 to `max_blocks` blocks.
    """
    block_size = draw(st.sampled_from(block_sizes))
    host_blocks = draw(st.sampled_from((0, 3, 40))) if host_tier else 0
    if trace is None:
        return Capacity(draw(st.integers(1, max_blocks)), block_size, host_blocks)
    needs = [-(-tokens // block_size) for tokens in _totals(trace)]
    least = max(1, max(needs) - 2)
    most = max(least, sum(needs))
    tenths = draw(st.sampled_from((10, 0, 1, 2, 3, 5)))
    return Capacity(least + (most - least) * tenths // 10, block_size, host_blocks)


@st.composite
def settings(
    draw: st.DrawFn,
    trace: Trace,
    *,
    policy: str = "vllm",
    memories: Sequence[str] = MEMORIES,
    lags: Sequence[int] = (0, 1),
    predictors: Sequence[str] = ("none", "oracle"),
    closed_loop: bool = True,
    host_tier: bool = True,
) -> RunSettings:
    """Settings under which `policy` serves `trace`: sizes, seats, budget, memory manager and load.

    `memories` are specs of memory managers, to which a host tier is added where they may have one
    and name none; `lags` values of `decision_lag`. All that is drawn stands in the settings, so
    `schedsim run` repeats the run.
    """
    capacity = draw(capacities(trace, host_tier=host_tier))
    memory = draw(st.sampled_from(memories))
    if capacity.host_blocks and getattr(make_manager(memory), "host_blocks", None) == 0:
        memory += f",host_blocks={capacity.host_blocks}"
    return make_settings(
        policy=policy,
        memory=memory,
        blocks=capacity.blocks,
        block_size=capacity.block_size,
        max_seqs=draw(st.sampled_from((8, 4, 2, 3, 1))),
        token_budget=draw(st.sampled_from((64, 16, 7, 3, 1, 2048))),
        max_model_len=max(2, *_totals(trace)),
        concurrency=draw(st.sampled_from((None, 1, 3))) if closed_loop else None,
        predictor=draw(st.sampled_from(predictors)),
        step_time=STEP_TIME,
        decision_lag=draw(st.sampled_from(lags)),
    )


def _totals(trace: Trace) -> list[int]:
    """Prompt and output limit of every request, together."""
    limits = trace.max_output_tokens
    outputs = trace.output_tokens if limits is None else np.maximum(limits, trace.output_tokens)
    totals: list[int] = (trace.prompt_tokens.astype(np.int64) + outputs).tolist()
    return totals


def _trace_of(rows: list[_Row]) -> Trace:
    parents, prompts, sessions = _conversations(rows)
    outputs = np.array([row.output for row in rows], dtype=np.int32)
    return Trace(
        arrival=np.cumsum([0.0, *(row.gap for row in rows[1:])]),
        prompt_tokens=np.array(prompts, dtype=np.int32),
        output_tokens=outputs,
        source=TraceSource("drawn", "schedsim.testing", rows_read=len(rows)),
        max_output_tokens=outputs + np.array([row.spare for row in rows], dtype=np.int32),
        parent=_column(parents, -1),
        session=None if max(parents) < 0 else np.array(sessions, dtype=np.int64),
        think_s=None if max(parents) < 0 else np.array([row.gap for row in rows]),
        tenant=_column([row.tenant for row in rows], 0),
        priority=_column([row.priority for row in rows], 0),
        ttft_slo=_targets(rows, 0.05),
        tpot_slo=_targets(rows, 0.01),
        predicted_output=_predictions(rows),
        blocks=_stems(rows, parents, prompts),
    )


def _conversations(rows: list[_Row]) -> tuple[list[int], list[int], list[int]]:
    """Parent, prompt and session of each request; a follow-up's prompt begins with all before."""
    parents: list[int] = []
    prompts: list[int] = []
    sessions: list[int] = []
    depths: list[int] = []
    for index, row in enumerate(rows):
        parent = index - row.parents_back
        if row.parents_back == 0 or parent < 0 or depths[parent] == _MAX_DEPTH:
            parents.append(-1)
            prompts.append(row.prompt)
            sessions.append(index)
            depths.append(0)
        else:
            parents.append(parent)
            prompts.append(prompts[parent] + rows[parent].output + row.prompt)
            sessions.append(sessions[parent])
            depths.append(depths[parent] + 1)
    return parents, prompts, sessions


def _stems(rows: list[_Row], parents: list[int], prompts: list[int]) -> PromptBlocks | None:
    chains = [
        [
            10 * row.stem + block
            for block in range(min(row.stem_blocks, -(-prompt // _CHAIN_BLOCK)))
            if row.stem and parent < 0
        ]
        for row, parent, prompt in zip(rows, parents, prompts, strict=True)
    ]
    if not any(chains):
        return None
    offsets = np.cumsum([0, *map(len, chains)], dtype=np.int64)
    ids = [number for chain in chains for number in chain]
    return PromptBlocks(_CHAIN_BLOCK, offsets, np.array(ids, dtype=np.int64))


def _column(values: list[int], plain: int) -> IntColumn | None:
    if all(value == plain for value in values):
        return None
    return np.array(values, dtype=np.int64)


def _targets(rows: list[_Row], seconds: float) -> FloatColumn | None:
    if not any(row.has_slo for row in rows):
        return None
    return np.array([seconds if row.has_slo else np.nan for row in rows])


def _predictions(rows: list[_Row]) -> FloatColumn | None:
    if not any(row.predicted for row in rows):
        return None
    return np.array([float(row.predicted) if row.predicted else np.nan for row in rows])
