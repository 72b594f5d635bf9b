"""Each format reads as its publisher means it, found by content, plain or gzip."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from schedsim.errors import TraceError
from schedsim.traces import Trace, read_trace
from schedsim.traces.readers import csv_table
from schedsim.traces.readers.rows import spread_over_ticks
from tests.traces import samples
from tests.traces.samples import SAMPLES, write_sample


def read(folder: Path, content: str, **options: object) -> Trace:
    return read_trace(write_sample(folder, content), **options)  # type: ignore[arg-type]


def books_balance(trace: Trace) -> bool:
    return trace.source.rows_read == len(trace) + sum(trace.source.dropped.values())


@pytest.mark.parametrize("name", SAMPLES)
def test_format_is_found_by_content_plain_or_gzip_whatever_the_name(
    tmp_path: Path, name: str
) -> None:
    content, format_name = SAMPLES[name]
    plain = read_trace(write_sample(tmp_path, content, "trace.xyz"))
    stored = gzip.compress(content.encode())
    packed = read_trace(write_sample(tmp_path, stored, "trace.csv"))
    assert plain.source.format == packed.source.format == format_name
    assert packed.source.name == "trace.csv"
    assert packed.source.sha256 == hashlib.sha256(stored).hexdigest()
    assert books_balance(plain)
    for column, values in plain.columns().items():
        np.testing.assert_array_equal(values, packed.columns()[column])


@pytest.mark.parametrize("name", SAMPLES)
def test_stating_the_format_reads_the_same(tmp_path: Path, name: str) -> None:
    content, format_name = SAMPLES[name]
    found, stated = read(tmp_path, content), read(tmp_path, content, format=format_name)
    for column, values in found.columns().items():
        np.testing.assert_array_equal(values, stated.columns()[column])


def test_azure_2023_has_seven_digits_crlf_and_no_final_newline(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.AZURE_2023)
    assert trace.arrival.tolist() == [0.0, 0.052, 0.098189]
    assert trace.prompt_tokens.tolist() == [4808, 3180, 110]
    assert trace.output_tokens.tolist() == [10, 8, 27]
    assert trace.source.start_ns == 1_700_158_623_979_960_000


def test_azure_2024_has_a_zone_and_a_time_without_fraction(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.AZURE_2024)
    assert trace.arrival.tolist() == [0.0, 0.007405, 0.99007]
    assert trace.source.start_ns == 1_715_299_200_009_930_000


def test_azure_2025_has_its_columns_by_name(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.AZURE_2025)
    assert trace.prompt_tokens.tolist() == [1200, 90]
    assert trace.source.notes == ("fields not read: NumImages",)


def test_burstgpt_failures_are_dropped_and_counted_or_kept_and_noted(tmp_path: Path) -> None:
    dropped = read(tmp_path, samples.BURSTGPT_6)
    assert dropped.source.rows_read == 5
    assert dict(dropped.source.dropped) == {"zero output tokens": 2}
    assert dropped.arrival.tolist() == [0, 40, 40]
    kept = read(tmp_path, samples.BURSTGPT_6, zero_tokens="keep")
    assert len(kept) == 5
    assert kept.output_tokens.tolist()[-2:] == [1, 1]
    assert kept.prompt_tokens.tolist()[-1] == 1
    assert any("2 rows" in note for note in kept.source.notes)


def test_burstgpt_sessions_come_from_the_inserted_columns(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.BURSTGPT_8)
    assert trace.session is not None
    assert trace.session.tolist() == [0, -1, 1, 0]
    assert trace.prompt_tokens.tolist() == [100, 50, 60, 140]
    assert trace.parent is None


def test_length_pairs_have_no_arrivals_and_ignore_the_ratio(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.LENGTHS)
    assert not trace.has_arrivals
    assert trace.arrival.tolist() == [0, 0]
    assert trace.output_tokens.tolist() == [284, 243]


def test_mooncake_blocks_hold_the_partial_last_one(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.MOONCAKE)
    assert trace.blocks is not None
    assert trace.blocks.block_size == 512
    assert trace.blocks.offsets.tolist() == [0, 3, 6, 7, 9, 10]
    assert trace.arrival.tolist() == [0, 0, 0, 3, 3]
    assert any("ticks of 3 s" in note for note in trace.source.notes)


def test_mooncake_layout_with_another_block_size_is_known_by_its_chains(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"timestamp": 0, "input_length": 33, "output_length": 5, "hash_ids": [1, 2, 3]},
        {"timestamp": 20, "input_length": 16, "output_length": 5, "hash_ids": [1]},
    ]
    trace = read(tmp_path, samples.json_lines(rows))
    assert trace.blocks is not None
    assert trace.blocks.block_size == 16


def test_ticks_spread_evenly_in_row_order(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.MOONCAKE, spread_ticks=True)
    assert trace.arrival.tolist() == [0, 1, 2, 3, 4.5]
    assert trace.prompt_tokens.tolist() == [1200, 1536, 100, 513, 512]
    with pytest.raises(TraceError, match="nothing to spread"):
        read(tmp_path, samples.AZURE_2023, spread_ticks=True)


def test_spread_requests_stay_inside_their_tick() -> None:
    arrival = np.repeat([0.0, 2.999, 6.0, 15.0], [7, 28, 1, 3])
    spread = spread_over_ticks(arrival, 3.0)
    assert (np.diff(spread) >= 0).all()
    assert (spread >= arrival).all()
    assert (spread[:7] < 2.999).all()
    assert spread[-1] == 17.0


def test_qwen_chats_are_sessions_in_open_loop(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.QWEN)
    assert trace.session is not None
    assert trace.session.tolist() == [0, 1, 0, 2]
    assert trace.parent is None
    assert trace.arrival.tolist() == [0.5, 1.25, 9.0, 9.5]
    assert any("1 turns follow a chat" in note for note in trace.source.notes)


def test_agentic_sessions_are_closed_loops_with_sub_agents_as_branches(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.AGENTIC_PRETTY)
    assert trace.parent is not None
    assert trace.think_s is not None
    assert trace.blocks is not None
    assert not trace.has_arrivals
    # main 0 at 0, main 1 at 12; both sub-agents begin after 1 (ends at 20): one at 51 - 30 = 21,
    # its last answer at 51; the one without a duration at 20. Main 60 waits for the later, 9 s.
    assert trace.arrival.tolist() == [0, 12, 20, 21, 46, 60]
    assert trace.prompt_tokens.tolist() == [130, 200, 64, 70, 150, 260]
    assert trace.parent.tolist() == [-1, 0, 1, 1, 3, 4]
    assert trace.think_s.tolist() == [0, 2, 0, 1, 20, 9]
    assert trace.blocks.ids.tolist() == [1, 2, 1, 2, 3, 11, 9, 9, 10, 1, 2, 3, 4]


def test_agentic_block_ids_are_apart_between_sessions(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.AGENTIC)
    assert trace.blocks is not None
    assert trace.session is not None
    owner = np.repeat(trace.session, np.diff(trace.blocks.offsets))
    assert not set(trace.blocks.ids[owner == 0]) & set(trace.blocks.ids[owner == 1])


def test_request_after_a_dropped_one_waits_for_the_one_before(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.json_lines([samples.PLAIN_SESSION]))
    assert dict(trace.source.dropped) == {"zero output tokens": 1}
    assert trace.parent is not None
    assert trace.think_s is not None
    assert trace.parent.tolist() == [-1, 0]
    assert trace.think_s.tolist() == [0, 4 + 3]


def test_think_times_can_be_capped(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.AGENTIC, think_cap_s=5)
    assert trace.think_s is not None
    assert trace.think_s.max() == 5
    assert any("cut to 5 s" in note for note in trace.source.notes)
    with pytest.raises(TraceError, match="no think times"):
        read(tmp_path, samples.AZURE_2023, think_cap_s=5)


def test_tracelab_rounds_wait_for_the_round_before(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.TRACELAB)
    assert trace.parent is not None
    assert trace.think_s is not None
    assert trace.prompt_tokens.tolist() == [32272, 900, 35740]
    assert trace.parent.tolist() == [-1, -1, 0]
    assert trace.arrival.tolist() == [0, 0.849, 30.787]
    assert trace.think_s.tolist() == [0, 0, 19.291]
    assert dict(trace.source.dropped) == {"no timing events": 1}


def test_texts_need_a_stated_ratio(tmp_path: Path) -> None:
    for content, _ in samples.TEXT_SAMPLES.values():
        with pytest.raises(TraceError, match="chars_per_token"):
            read(tmp_path, content)
    with pytest.raises(TraceError, match="leave chars_per_token out"):
        read(tmp_path, samples.AZURE_2023, chars_per_token=4.0)


def test_sharegpt_prompts_hold_all_that_was_said_before(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.SHAREGPT, chars_per_token=4.0)
    assert trace.prompt_tokens.tolist() == [10, 18]
    assert trace.output_tokens.tolist() == [5, 1]
    assert trace.parent is not None
    assert trace.parent.tolist() == [-1, 0]
    assert dict(trace.source.dropped) == {"conversation without an answer": 1}
    assert any("4 characters" in note for note in trace.source.notes)


def test_agent_texts_are_put_in_time_order(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.AGENT_TEXT, chars_per_token=4.0)
    assert trace.prompt_tokens.tolist() == [1, 2]
    assert trace.arrival.tolist() == [0, 1]
    assert any("not in time order (1 fell back)" in note for note in trace.source.notes)


def test_plain_rows_take_the_names_in_use(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.CUSTOM)
    assert trace.arrival.tolist() == [0.5, 0.75]
    assert trace.tenant_names == ("a", "b")
    lengths = read(tmp_path, samples.LENGTHS_JSONL)
    assert not lengths.has_arrivals


def test_plain_csv_takes_the_names_in_use(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.CUSTOM_CSV)
    assert trace.arrival.tolist() == [0.5, 0.75, 1.0]
    assert trace.prompt_tokens.tolist() == [30, 31, 9]
    assert trace.session is not None
    assert trace.session.tolist() == [0, -1, 0]
    assert trace.source.notes == ("fields not read: id",)


def test_sub_requests_wait_for_the_tool_between(tmp_path: Path) -> None:
    trace = read(tmp_path, samples.CUSTOM_SESSIONS)
    assert trace.parent is not None
    assert trace.think_s is not None
    assert trace.session is not None
    assert trace.prompt_tokens.tolist() == [10, 5, 20]
    assert trace.parent.tolist() == [-1, -1, 0]
    assert trace.think_s.tolist() == [0, 0, 2]
    assert trace.session.tolist() == [0, -1, 0]


def test_large_csv_reads_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("azure-2023", "azure-2024", "azure-offset", "burstgpt-8", "vidur", "lengths"):
        content, _ = SAMPLES[name]
        by_cell = read(tmp_path, content)
        monkeypatch.setattr(csv_table, "LARGE_BYTES", 0)
        by_arrow = read(tmp_path, content)
        monkeypatch.undo()
        assert by_cell.source == by_arrow.source
        for column, values in by_cell.columns().items():
            np.testing.assert_array_equal(values, by_arrow.columns()[column])


@pytest.mark.parametrize(
    ("name", "rows", "dropped"),
    [
        ("agentic-coding/traces_0001-0100.jsonl.gz", 5541, 3),
        ("agentic-coding/traces_0251-0350.jsonl.gz", 8766, 5),
        ("agentic-coding/traces_0551-0650.jsonl.gz", 8660, 1),
        ("azure-2023/AzureLLMInferenceTrace_code.csv.gz", 8819, 0),
        ("azure-2023/AzureLLMInferenceTrace_conv.csv.gz", 19366, 0),
        ("lengths/arxiv_long_online.csv.gz", 10111, 0),
        ("lengths/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz", 28257, 0),
        ("lengths/sharegpt_8k_filtered_stats_llama2_tokenizer.csv.gz", 30731, 0),
        ("lengths/sharegpt_val_10k_llama2.csv.gz", 10000, 0),
        ("mooncake-fast25/conversation_trace.jsonl.gz", 12031, 0),
        ("tracelab-sample/round_trace.jsonl.gz", 19, 0),
        ("vidur-format/splitwise_code.csv.gz", 8819, 0),
        ("vidur-format/splitwise_conv.csv.gz", 19366, 0),
    ],
)
def test_every_shared_trace_reads_with_its_row_count(
    shared_traces: Path, name: str, rows: int, dropped: int
) -> None:
    trace = read_trace(shared_traces / name)
    assert trace.source.rows_read == rows
    assert len(trace) == rows - dropped
    assert books_balance(trace)


def test_azure_and_its_vidur_copy_agree_to_the_microsecond(shared_traces: Path) -> None:
    for service in ("code", "conv"):
        azure = read_trace(shared_traces / f"azure-2023/AzureLLMInferenceTrace_{service}.csv.gz")
        vidur = read_trace(shared_traces / f"vidur-format/splitwise_{service}.csv.gz")
        np.testing.assert_allclose(azure.arrival, vidur.arrival, atol=1e-6, rtol=0)
        np.testing.assert_array_equal(azure.prompt_tokens, vidur.prompt_tokens)


def test_miniswe_reads_with_an_estimate(shared_traces: Path) -> None:
    path = shared_traces / "agent-text/miniswe.jsonl.gz"
    trace = read_trace(path, chars_per_token=4.0)
    assert len(trace) == 402
    assert trace.session is not None
    assert len(np.unique(trace.session)) == 20
    with pytest.raises(TraceError, match="holds texts"):
        read_trace(path)
