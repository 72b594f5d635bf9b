"""A bad file is one clear error that names file, line, field, value and what to do."""

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError, TraceError
from schedsim.traces import Trace, read_trace, write_trace
from tests.traces import samples
from tests.traces.samples import SAMPLES, TEXT_SAMPLES, write_sample

AZURE = samples.AZURE_2024


def broken_mooncake(**fields: object) -> str:
    rows = [json.loads(line) for line in samples.MOONCAKE.splitlines()]
    rows[2] = {key: value for key, value in {**rows[2], **fields}.items() if value != "gone"}
    return samples.json_lines(rows)


BROKEN = [
    (AZURE.replace(",2399,", ",-5,"), "line 3, ContextTokens: -5 is negative"),
    (AZURE.replace(",2399,", ",many,"), "line 3, ContextTokens: 'many' is not a whole number"),
    (AZURE.replace(",2399,", ",23.5,"), "line 3, ContextTokens: '23.5' is not a whole number"),
    (AZURE.replace(",2399,", ",,"), "line 3, ContextTokens: '' is not a whole number"),
    (AZURE.replace(",2399,", ",2147483648,"), "line 3, ContextTokens: 2147483648 is above"),
    (
        AZURE.replace(",2399,", ",9999999999999999999,"),
        "line 3, ContextTokens: '9999999999999999999'",
    ),
    (AZURE.replace(",2399,", ","), "line 3: 2 fields where the header names 3"),
    (AZURE.replace("2024-05-10 00:00:00.017", "2024-13-10 00:00:00.017"), "line 3, TIMESTAMP"),
    (AZURE.replace("2024-05-10 00:00:00.017", "yesterday 00.017"), "is not a time like"),
    (samples.VIDUR.replace("4.314579", "-1.5"), "line 3, arrived_at: -1.5 is negative"),
    (samples.VIDUR.replace("4.314579", "nan"), "line 3, arrived_at: nan is not a finite number"),
    (samples.VIDUR.replace("4.314579", "soon"), "line 3, arrived_at: 'soon' is not a number"),
    (samples.VIDUR.splitlines()[0] + "\n", "holds no request"),
    (samples.VIDUR.replace("arrived_at,", "arrived_at,arrived_at,"), "stands twice"),
    (broken_mooncake(input_length=-1), "line 3"),
    (broken_mooncake(input_length="7"), "line 3, input_length: '7' is not a whole number"),
    (broken_mooncake(input_length=True), "line 3, input_length: True is not a whole number"),
    (broken_mooncake(output_length="gone"), "line 3, output_length: is missing"),
    (broken_mooncake(timestamp=-3000), "line 3, timestamp: -3.0 is negative"),
    (broken_mooncake(timestamp=float("nan")), "line 3, timestamp: nan is not a finite number"),
    (broken_mooncake(hash_ids=[4, 6]), "line 3, hash_ids: 2 blocks of 512 tokens"),
    (broken_mooncake(hash_ids=[0.5]), "line 3, hash_ids: [0.5] is not a list of whole numbers"),
    (broken_mooncake(hash_ids=[2**63]), "line 3, hash_ids"),
    (broken_mooncake(hash_ids="gone"), "line 3, hash_ids"),
    (samples.MOONCAKE.replace('{"timestamp": 3000', '{"timestamp" 3000', 1), "line 4"),
    (samples.MOONCAKE + "[1]\n", "line 6, row: [1] is not a JSON object"),
    (samples.QWEN.replace("[1, 2, 5]", "[1]"), "line 3, hash_ids"),
    (samples.AGENTIC.replace("[9, 10]", "[9]"), "line 1, requests[2].requests[1].in: 150 does not"),
    (
        samples.AGENTIC.replace('"t": 12.0', '"t": -12.0'),
        "line 1, requests[1].t: -12.0 is negative",
    ),
    (samples.AGENTIC.replace('"block_size": 64', '"block_size": 0'), "line 1, block_size: 0"),
    (samples.TRACELAB.replace('"round_index": 1', '"round_index": 0'), "stands in line 1 too"),
    (samples.TRACELAB.replace("2026-06-01T05:40:50", "noon"), "line 3, timing_events[0].timestamp"),
    (samples.CUSTOM.replace("750000000", "null"), "line 2, arrival_time_ns: None is not a number"),
    ("policy,ttft_p50,ttft_p99\nvllm,0.1,0.2\n", "begins with 'policy,ttft_p50,ttft_p99'"),
    ("600,4.2,1.1,Gamma,0.8,0.2\n", "no known trace format"),
    ('{"prompt": "hi"}\n', "begins with 'prompt'"),
    ("[]", "empty list"),
    ("[1, 2]", "item 1, row: 1 is not a JSON object"),
    ('[{"a": 1},\n{"b" 2}]', "line 2: is not valid JSON"),
    ("", "is empty"),
    ("\n \n", "is empty"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=range(len(BROKEN)))
def test_broken_file_says_where_and_what(tmp_path: Path, content: str, message: str) -> None:
    for stored in (content.encode(), gzip.compress(content.encode())):
        path = write_sample(tmp_path, stored, "bad.trace")
        with pytest.raises(TraceError) as caught:
            read_trace(path)
        assert message in str(caught.value)
        assert "bad.trace" in str(caught.value)


def test_large_csv_names_the_broken_line(tmp_path: Path) -> None:
    lines = ["arrived_at,num_prefill_tokens,num_decode_tokens"]
    lines += [f"{row}.0,{row % 4096 + 1},7" for row in range(500_000)]
    lines[400_000] = "399999.0,-7,7"
    path = write_sample(tmp_path, "\n".join(lines))
    with pytest.raises(TraceError, match=r"line 400001, num_prefill_tokens: -7 is negative"):
        read_trace(path)
    lines[400_000] = "399999.0,seven,7"
    with pytest.raises(TraceError, match=r"line 400001, num_prefill_tokens: 'seven'"):
        read_trace(write_sample(tmp_path, "\n".join(lines)))


def test_blank_lines_do_not_shift_line_numbers(tmp_path: Path) -> None:
    content = samples.VIDUR.replace("\n", "\n\n") + "5.0,x,1\n\n"
    with pytest.raises(TraceError, match=r"line 7, num_prefill_tokens: 'x'"):
        read_trace(write_sample(tmp_path, content))


def test_truncated_gzip_says_after_how_many_lines(tmp_path: Path) -> None:
    rows = [f"{row}.0,{random.Random(row).randrange(1, 9999)},7" for row in range(5000)]
    stored = gzip.compress(("\n".join([samples.VIDUR.splitlines()[0], *rows])).encode())
    with pytest.raises(TraceError, match=r"line \d{3,4}: the gzip stream ends too early"):
        read_trace(write_sample(tmp_path, stored[: len(stored) // 2]))
    damaged = stored[:-6] + bytes(byte ^ 255 for byte in stored[-6:])
    with pytest.raises(TraceError, match="damaged"):
        read_trace(write_sample(tmp_path, damaged))


def test_missing_file_directory_and_archive_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file"):
        read_trace(tmp_path / "absent.csv")
    with pytest.raises(TraceError, match="is a directory"):
        read_trace(tmp_path)
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace("a\0b")
    tar = b"chunk-0-trace.csv".ljust(257, b"\0") + b"ustar\x0000"
    with pytest.raises(TraceError, match="tar archive"):
        read_trace(write_sample(tmp_path, gzip.compress(tar.ljust(1024, b"\0"))))


def test_servegen_archives_are_refused_with_a_reason(shared_traces: Path) -> None:
    for path in sorted((shared_traces / "servegen").glob("*.tar.gz")):
        with pytest.raises(TraceError, match="distributions"):
            read_trace(path)


def test_unknown_or_wrong_format_is_refused(tmp_path: Path) -> None:
    path = write_sample(tmp_path, samples.VIDUR)
    with pytest.raises(ConfigError, match="Did you mean 'vidur'"):
        read_trace(path, format="vidor")
    with pytest.raises(TraceError, match="no column 'TIMESTAMP'"):
        read_trace(path, format="azure")
    with pytest.raises(TraceError, match="not of format 'mooncake'"):
        read_trace(path, format="mooncake")
    with pytest.raises(TraceError, match="input_length: is missing"):
        read_trace(write_sample(tmp_path, samples.AGENT_TEXT), format="mooncake")


def test_all_rows_unusable_is_an_error(tmp_path: Path) -> None:
    content = "arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,0\n1,0,3\n"
    with pytest.raises(TraceError, match="none of its 2 rows can be used"):
        read_trace(write_sample(tmp_path, content))


ALL_SAMPLES = {**SAMPLES, **TEXT_SAMPLES}
TOKENS = ["-1", "0", "x", "", "1e400", "nan", "null", "[]", "{}", '"', "9" * 30, "true", "1.5", ","]


def read_or_refuse(folder: Path, content: bytes, name: str) -> Trace | None:
    """Reads, or raises TraceError; anything else fails the test."""
    ratio = 4.0 if name in TEXT_SAMPLES else None
    try:
        return read_trace(write_sample(folder, content), chars_per_token=ratio)
    except TraceError:
        return None


def check_books(trace: Trace | None) -> None:
    if trace is not None:
        assert trace.source.rows_read == len(trace) + sum(trace.source.dropped.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", ALL_SAMPLES)
@given(data=st.data())
def test_mutated_bytes_read_or_are_refused(folder: Path, name: str, data: st.DataObject) -> None:
    content = bytearray(ALL_SAMPLES[name][0].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.integers(0, 3))
        content[place : place + cut] = data.draw(st.binary(max_size=4))
    check_books(read_or_refuse(folder, bytes(content), name))


@pytest.mark.parametrize("name", ALL_SAMPLES)
@given(data=st.data())
def test_mutated_lines_and_values_read_or_are_refused(
    folder: Path, name: str, data: st.DataObject
) -> None:
    lines = ALL_SAMPLES[name][0].splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "twice", "swap", "value", "cut"]))
        line = lines[place]
        if change == "drop" and len(lines) > 1:
            del lines[place]
        elif change == "twice":
            lines.insert(place, line)
        elif change == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[place], lines[other] = lines[other], line
        elif change == "value":
            lines[place] = replace_number(line, data)
        else:
            lines[place] = line[: data.draw(st.integers(0, len(line)))]
    check_books(read_or_refuse(folder, "".join(lines).encode(), name))


def replace_number(line: str, data: st.DataObject) -> str:
    """Put an unfit token in the place of one number of the line."""
    places = [index for index, character in enumerate(line) if character.isdigit()]
    if not places:
        return line
    start = data.draw(st.sampled_from(places))
    end = start + 1
    while end < len(line) and line[end].isdigit():
        end += 1
    return line[:start] + data.draw(st.sampled_from(TOKENS)) + line[end:]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
@given(data=st.data())
def test_mutated_own_files_read_or_are_refused(
    folder: Path, suffix: str, data: st.DataObject
) -> None:
    path = folder / f"own{suffix}"
    write_trace(read_trace(write_sample(folder, samples.AGENTIC, "original")), path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    check_books(read_or_refuse(folder, bytes(content), "own"))
