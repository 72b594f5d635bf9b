"""A run that vLLM 0.19 served on a GPU, simulated: bounds on its requests, and the page on it."""

from pathlib import Path

import pytest

from tests.benchmarks.vllm_record import Recorded, clock_offset, read_run, shared_prompts
from tests.benchmarks.vllm_run import STEP_TIMES, Compared, compare, report, settings_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "vllm-run.md"


@pytest.fixture(scope="module")
def run(shared_oracles: Path) -> Recorded:
    return read_run(shared_oracles / "vllm_runs" / "RTX4090_Llama-3.1-8B")


@pytest.fixture(scope="module")
def compared(run: Recorded) -> Compared:
    return compare(run, STEP_TIMES["tables"])


def test_end_to_end_each_request_is_within_bounds(compared: Compared) -> None:
    median, ninetieth, *_ = compared.quantiles("e2e_s")
    assert median < 0.02
    assert ninetieth < 0.05
    assert len(compared.early) == 300
    median, ninetieth, *_ = compared.quantiles("e2e_s", early=True)
    assert median < 0.02
    assert ninetieth < 0.05


def test_running_requests_and_memory_are_within_three_of_the_recorded(compared: Compared) -> None:
    assert compared.series is not None
    running, waiting, used = compared.series
    assert running < 3
    assert waiting < 3
    assert used < 3


def test_the_engine_is_the_recorded_one(run: Recorded) -> None:
    settings = settings_of(run, STEP_TIMES["tables"].spec)
    assert (settings.blocks, settings.block_size, settings.max_seqs) == (2587, 16, 256)
    assert (settings.token_budget, settings.max_model_len) == (2048, 32768)
    assert settings.policy == "vllm@0.19"
    assert settings.step_time == f"tables:{run.tables},graphs=512"


def test_the_records_tell_that_prompts_shared_blocks(run: Recorded) -> None:
    assert 0.115 <= clock_offset(run) <= 0.14
    sharing = {second: needed - used for second, needed, used in shared_prompts(run)}
    assert sharing[127] > 50
    assert max(sharing) < 168  # the last ones, when nobody waits, have no prompt in common


def test_the_page_has_every_figure(run: Recorded) -> None:
    page = PAGE.read_text(encoding="utf-8")
    *tables, _ = report(run)
    for line in tables:
        assert line in page
    found = shared_prompts(run)
    most = max(found, key=lambda sharing: sharing.needed - sharing.used)
    told = f"at least {most.needed:,} against {most.used:,} in second {most.second}"
    assert f"At {len(found)} of their seconds" in " ".join(page.split())
    assert told in " ".join(page.split())
