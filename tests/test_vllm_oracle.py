"""`vllm` against vLLM 0.33.0's own scheduler, iteration by iteration, block ids included."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from schedsim.memory import PagedKVCache
from schedsim.policies.vllm import VLLM
from schedsim.request import Request
from schedsim.scheduler import Scheduler, Step

CASES = (
    "c1_chunked_mix",
    "c2_heavy_preemption",
    "c3_first_chunk_admission",
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


@pytest.mark.parametrize("case", CASES)
def test_every_iteration_equals_vllms(case: str, shared_oracles: Path) -> None:
    path = shared_oracles / "vllm_scheduler" / "cases" / f"{case}.jsonl"
    meta, *records = [json.loads(line) for line in path.read_text().splitlines()]
    meta = meta["meta"]
    assert meta["policy"] == "fcfs"
    assert not meta["enable_prefix_caching"]
    threshold = meta["long_prefill_token_threshold"]
    policy = VLLM(whole_sequence=meta["scheduler_reserve_full_isl"], watermark=meta["watermark"])
    if threshold:
        policy = LongPrefillVLLM(policy.whole_sequence, policy.watermark, threshold)
    scheduler = Scheduler(
        policy,
        PagedKVCache(meta["num_blocks"], meta["block_size"]),
        max_seqs=meta["max_num_seqs"],
        token_budget=meta["max_num_batched_tokens"],
        max_model_len=meta["max_model_len"],
    )
    described = {request["id"]: request for request in meta["requests"]}
    requests: dict[str, Request] = {}
    for record in records:
        now = float(record["step"])
        for name in record["arrived"]:
            given = described[name]
            request = Request(
                int(name[1:]), now, given["prompt_len"], output_limit=given["output_len"]
            )
            requests[name] = request
            assert scheduler.add(request, given["output_len"], now)
        batch = scheduler.schedule(now)
        scheduler.check()
        entries = batch.expand()
        assert [[f"r{e.request.id}", e.tokens, e.kind, e.context] for e in entries] == record[
            "scheduled"
        ]
        assert [f"r{r.id}" for r in batch.preempted] == record["preempted"]
        assert scheduler.kv_cache.free_blocks == record["free_after_schedule"]
        tables = {
            f"r{e.request.id}": list(scheduler.kv_cache.block_table(e.request)) for e in entries
        }
        assert tables == record["blocks"]
        completion = scheduler.complete(batch, now + 1.0)
        scheduler.check()
        assert [f"r{r.id}" for r in completion.sampled()] == record["sampled"]
        assert [f"r{r.id}" for r in completion.finished] == record["finished"]
        assert scheduler.kv_cache.free_blocks == record["free_after_update"]
        assert [f"r{r.id}" for r in scheduler.running] == record["running"]
        assert [f"r{r.id}" for r in scheduler.waiting] == record["waiting"]
    assert not scheduler.num_running
    assert not scheduler.waiting
