"""`vllm` against vLLM 0.33.0's own scheduler, iteration by iteration, block ids included."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedsim.content import Content
from schedsim.memory import make_kv_cache
from schedsim.output_limit import Outputs
from schedsim.policies.vllm import VLLM
from schedsim.request import Request
from schedsim.scheduler import Scheduler, Step
from schedsim.traces.trace import PromptBlocks, Trace, TraceSource

CASES = (
    "c1_chunked_mix",
    "c2_heavy_preemption",
    "c3_first_chunk_admission",
    "c4_prefix_caching",
    "c5_prefix_caching_preemption",
    "c7_longprefill_watermark",
    "c8_multi_victim_steps",
)


@dataclass(slots=True)
class LongPrefillVLLM(VLLM):
    """`vllm` with its cap on one request's chunk, written as a user would: one hook."""

    threshold: int = 0

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        if self.threshold and step.num_running + step.num_waiting > 1:
            tokens = min(tokens, self.threshold)
        return min(tokens, step.tokens_left)


def make_scheduler(meta: dict[str, Any], content: Content) -> Scheduler:
    """`vllm` with the settings of a recording."""
    assert meta["policy"] == "fcfs"
    policy = VLLM(whole_sequence=meta["scheduler_reserve_full_isl"], watermark=meta["watermark"])
    threshold = meta["long_prefill_token_threshold"]
    if threshold:
        policy = LongPrefillVLLM(policy.whole_sequence, policy.watermark, threshold)
    memory = f"paged,prefix_caching={str(meta['enable_prefix_caching']).lower()}"
    return Scheduler(
        policy,
        make_kv_cache(memory, meta["num_blocks"], meta["block_size"], content),
        max_seqs=meta["max_num_seqs"],
        token_budget=meta["max_num_batched_tokens"],
        max_model_len=meta["max_model_len"],
    )


def make_trace(described: list[dict[str, Any]]) -> Trace:
    """Prefix groups as chains of blocks of one token, chat follow-ups by their parents."""
    row_of = {given["id"]: row for row, given in enumerate(described)}
    groups = sorted({given["prefix_group"] for given in described if given["prefix_group"]})
    chains = [
        [
            groups.index(given["prefix_group"]) * 10**6 + place
            for place in range(given["prefix_len"])
        ]
        if given["prefix_group"] and not given["replay_of"]
        else []
        for given in described
    ]
    return Trace(
        np.array([given["arrival_step"] for given in described], dtype=np.float64),
        np.array([given["prompt_len"] for given in described], dtype=np.int32),
        np.array([given["output_len"] for given in described], dtype=np.int32),
        TraceSource("oracle", "test", rows_read=len(described)),
        parent=np.array([row_of.get(given["replay_of"], -1) for given in described]),
        think_s=np.zeros(len(described)),
        blocks=PromptBlocks(
            1,
            np.cumsum([0, *map(len, chains)]),
            np.array([token for chain in chains for token in chain], dtype=np.int64),
        ),
    )


@pytest.mark.parametrize("case", CASES)
def test_every_iteration_equals_vllms(case: str, shared_oracles: Path) -> None:
    path = shared_oracles / "vllm_scheduler" / "cases" / f"{case}.jsonl"
    meta, *records = [json.loads(line) for line in path.read_text().splitlines()]
    meta = meta["meta"]
    described = sorted(meta["requests"], key=lambda given: given["arrival_step"])
    trace = make_trace(described)
    content = Content.of(trace, Outputs(trace.output_tokens, trace.output_tokens))
    scheduler = make_scheduler(meta, content)
    row_of = {given["id"]: row for row, given in enumerate(described)}

    def names(requests: list[Request]) -> list[str]:
        return [described[request.id]["id"] for request in requests]

    for record in records:
        now = float(record["step"])
        for name in record["arrived"]:
            given = described[row_of[name]]
            output = given["output_len"]
            request = Request(row_of[name], now, given["prompt_len"], output_limit=output)
            assert scheduler.add(request, output, now)
        batch = scheduler.schedule(now)
        scheduler.check()
        entries = batch.expand()
        scheduled = [[*names([e.request]), e.tokens, e.kind, e.context] for e in entries]
        assert scheduled == record["scheduled"]
        assert names(batch.preempted) == record["preempted"]
        assert scheduler.kv_cache.free_blocks == record["free_after_schedule"]
        tables = {
            described[e.request.id]["id"]: list(scheduler.kv_cache.block_table(e.request))
            for e in entries
        }
        assert tables == record["blocks"]
        completion = scheduler.complete(batch, now + 1.0)
        scheduler.check()
        assert names(completion.sampled()) == record["sampled"]
        assert names(completion.finished) == record["finished"]
        assert scheduler.kv_cache.free_blocks == record["free_after_update"]
        assert names(scheduler.running) == record["running"]
        assert names(scheduler.waiting) == record["waiting"]
    assert not scheduler.num_running
    assert not scheduler.waiting
