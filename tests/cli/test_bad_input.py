"""What is wrong with a trace, an option or a place is one message, before anything is written."""

import gzip
from pathlib import Path

import pytest

from schedsim.errors import ConfigError
from tests.cli.commands import RESULTS, manifest, names, refused, schedsim, summary

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2024-05-10 00:00:{:09.6f}+00:00,{},{}\n"


def azure(path: Path, *rows: tuple[float, object, object]) -> Path:
    path.write_text(HEADER + "".join(GOOD.format(*row) for row in rows))
    return path


# ---- the trace


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello world\nfoo\n", "is of no known trace format; it begins with 'hello world'"),
        (b"\x00\x01\x02\xff" * 100, "no known trace format"),
        (b"\x1f\x8b\x08\x00broken", "gzip"),
        (b"PAR1 and then nothing", "is not a whole Parquet file"),
        (b"", "is empty; a trace needs at least one request"),
        (HEADER.encode(), "holds no request; a trace needs at least one"),
        ((HEADER + GOOD.format(1, -5, 3)).encode(), "line 2, ContextTokens: -5 is negative"),
        ((HEADER + GOOD.format(1, 7, "x")).encode(), "line 2, GeneratedTokens: 'x' is not a whole"),
        (b"num_prefill_tokens,num_decode_tokens\n5,3\n", "give arrival times with --arrivals"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file, out = tmp_path / "trace.csv", tmp_path / "out"
    file.write_bytes(content)
    ended = schedsim("run", file, "--out", out)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    first, *more = ended.stderr.splitlines()
    assert first.startswith("error: ")
    assert str(file) in ended.stderr or file.name in ended.stderr
    assert message in ended.stderr
    # Only the list of the known formats takes more than a line.
    assert not more or first.endswith("Known formats:")
    assert not out.exists()


def test_a_missing_trace_and_a_directory_are_refused(tmp_path: Path) -> None:
    assert "no such file; check the path" in refused("run", tmp_path / "nowhere.csv")
    assert "is a directory; name one trace file in it" in refused("run", tmp_path)


@pytest.mark.parametrize("rows", [1_000, 40_000])
def test_a_broken_row_inside_a_gzip_is_named(tmp_path: Path, rows: int) -> None:
    file = tmp_path / "trace.csv.gz"
    lines = [GOOD.format(i / 1000, 100, 10) for i in range(rows)]
    lines[rows // 2] = lines[rows // 2].replace(",100,", ",1oo,")
    file.write_bytes(gzip.compress((HEADER + "".join(lines)).encode()))
    message = refused("run", file)
    assert f"{file}, line {rows // 2 + 2}, ContextTokens: '1oo' is not a whole number;" in message


def test_rows_out_of_order_are_sorted_and_noted(tmp_path: Path) -> None:
    file = azure(tmp_path / "trace.csv", (3, 10, 3), (1.5, 20, 4), (2, 30, 5))
    ended = schedsim("run", file, "--out", tmp_path / "out")
    assert ended.exit_code == 0
    assert any("rows were not in time order (1 fell back): sorted" in n for n in ended.notes)
    assert summary(tmp_path / "out")["requests"]["finished"] == 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "20004 tokens exceed the context of 8192 (max_model_len)"),
        (("--max-model-len", 30000, "--blocks", 100), "needs 1251 blocks, the cache has 100"),
    ],
)
def test_a_request_that_can_never_run_is_rejected_and_the_run_goes_on(
    tmp_path: Path, options: tuple[object, ...], reason: str
) -> None:
    file = azure(tmp_path / "trace.csv", (1, 10, 3), (2, 20000, 4), (3, 30, 5))
    ended = schedsim("run", file, *options, "--out", tmp_path / "out")
    assert ended.exit_code == 0
    assert any(
        f"1 of 3 requests rejected; the first, request 1: {reason}" in n for n in ended.notes
    )
    counts = summary(tmp_path / "out")["requests"]
    assert (counts["finished"], counts["rejected"]) == (2, 1)


@pytest.mark.parametrize("policy", ["vllm", "vllm-v0", "sarathi", "static"])
def test_a_run_in_which_all_are_rejected_still_reports(tmp_path: Path, policy: str) -> None:
    out = tmp_path / "out"
    options = ("--limit", 20, "--blocks", 1, "--block-size", 1, "--slo", "ttft=1,tpot=1")
    ended = schedsim("run", "--policy", policy, *options, "--decisions", "--out", out)
    assert ended.exit_code == 0
    assert summary(out)["requests"]["rejected"] == 20
    assert names(out) == RESULTS | {"decisions.jsonl.gz"}
    assert manifest(out)["complete"] is True


# ---- names


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--model", "llama-3-8", "Did you mean 'llama-3-8b'? Known: llama-2-13b"),
        ("--model", "nowhere/config.json", "config.json"),
        ("--gpu", "h10", "Did you mean 'h100'? Known: a100-40gb"),
        ("--memory", "", "'' names nothing"),
        ("--memory", "vattention,page_kib=999999999", "no room for a KV block of "),
        ("--memory", "pagd", "Did you mean 'paged'? Known: "),
        ("--memory", "paged,size=1", "has no parameter 'size'"),
        ("--memory", "contiguous,reserve=some", "must be one of limit, max, predicted"),
        ("--memory", "contiguous,margin=0.5", "margin=0.5 is for reserve=predicted"),
        ("--memory", "contiguous,reserve=predicted,margin=nan", "margin=nan is negative or not"),
        ("--memory", "buddy,host_blocks=-1", "host_blocks=-1 is not from 0 to"),
        ("--memory", "radix,page_size=0", "page_size=0 is not from 1 to 65536"),
        ("--memory", "vattention,page_kib=0", "page_kib=0 is below 1"),
        ("--memory", "vattention,page_kib=1", "a page of 1 KiB does not hold the keys of a token"),
        ("--predictor", "orcle", "Did you mean 'oracle'? Known: bins, column, history, lognormal,"),
        ("--predictor", "oracle,latency=-1", "latency=-1.0 must be finite and not negative"),
        ("--predictor", "column", "request 0 has no predicted_output in the trace; add the column"),
        ("--predictor", "lognormal,sigma=nan", "sigma=nan is not in [0, 10)"),
        ("--predictor", "lognormal,sigma=wide", "sigma='wide': must be a number"),
        ("--arrivals", "poison:rate=1", "Did you mean 'poisson'? Known: "),
        ("--arrivals", "poisson", "needs rate=…"),
        ("--arrivals", "poisson:rate=0", "need rate > 0"),
        ("--arrivals", "poisson:rate=nan", "need rate > 0"),
        ("--step-time", "linea", "Did you mean 'linear'? Known: "),
        ("--step-time", "linear", "write linear:FILE"),
        ("--step-time", "linear:nowhere.toml", "nowhere.toml: cannot read the file"),
        ("--max-output", "constant", "Known: column, const:TOKENS, context, factor:K."),
        ("--max-output", "const:-1", "-1 must be above 0"),
        ("--max-output", "const:1e99", "1e99 must be above 0 and below 2^31"),
        ("--max-output", "factor:nan", "nan must be above 0"),
        ("--max-output", "const:3,cap=4", "write one of column"),
        ("--max-output", "column", "no max_output_tokens column"),
        ("--tp", "3", "these do: 1, 2, 4, 8"),
        ("--think-cap", "1", "are for a trace of your own"),
        ("--policy", "VLLM", "Did you mean 'vllm'?"),
        ("--policy", "vllm,static", "write --policy vllm --policy static"),
    ],
)
def test_a_wrong_name_lists_what_there_is(
    tmp_path: Path, option: str, value: str, message: str
) -> None:
    assert message in refused("run", "-q", option, value, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_policy_in_the_place_of_the_trace_is_recognised() -> None:
    assert "is no trace file but a policy: write --policy static" in refused("run", "static")


@pytest.mark.parametrize("option", [("--arrivals", "poisson:rate=5"), ("--rate-scale", 2)])
def test_a_closed_loop_takes_no_arrival_times(option: tuple[object, ...]) -> None:
    message = refused("run", "--limit", 5, "--concurrency", 2, *option)
    assert f"leave {option[0]} out" in message


def test_a_mistyped_option_or_command_names_the_nearest() -> None:
    typed = (("--policy", "run", "--polcy"), ("run", "rnu"), ("info", "trace", "inof"))
    for meant, *arguments in typed:
        ended = schedsim(*arguments)
        assert ended.exit_code == 2
        assert ended.stdout == ""
        assert meant in ended.stderr.split("Error")[1]


def test_settings_of_the_python_call_are_checked_alike() -> None:
    import schedsim as package

    with pytest.raises(ConfigError, match=r"unknown setting 'bloks'. Did you mean 'blocks'\?"):
        package.simulate(package.sample_trace(), "vllm", bloks=3)


# ---- numbers

HUGE = 10**30
WHOLE = (
    *("--tp", "--blocks", "--block-size", "--max-seqs", "--token-budget", "--max-model-len"),
    *("--concurrency", "--limit", "--seed", "--check"),
)
OUT_OF_RANGE = [
    ("--tensor-parallel", 0, "tensor_parallel=0 must be at least 1"),
    ("--tensor-parallel", HUGE, "must be at most 1024"),
    ("--blocks", 0, "blocks=0 must be at least 1"),
    ("--blocks", -1, "blocks=-1 must be at least 1"),
    ("--blocks", HUGE, "must be at most 16777216"),
    ("--block-size", 0, "block_size=0 must be at least 1"),
    ("--block-size", HUGE, "must be at most 65536"),
    ("--max-seqs", 0, "max_seqs=0 must be at least 1"),
    ("--token-budget", -1, "token_budget=-1 must be at least 1"),
    ("--max-model-len", 0, "max_model_len=0 must be at least 2"),
    ("--max-model-len", HUGE, "must be below 2147483648"),
    ("--concurrency", 0, "concurrency=0 must be at least 1"),
    ("--rate-scale", 0, "rate_scale=0.0 must be above 0"),
    ("--rate-scale", -1, "rate_scale=-1.0 must be above 0"),
    ("--rate-scale", "nan", "rate_scale=nan: Input should be a finite number"),
    ("--rate-scale", "1e400", "rate_scale=inf: Input should be a finite number"),
    ("--limit", 0, "limit=0 must be at least 1"),
    ("--limit", -1, "limit=-1 must be at least 1"),
    ("--seed", -1, "seed=-1 must be at least 0"),
    ("--slo", "ttft=0", "slo_ttft=0.0 must be above 0"),
    ("--slo", "tpot=nan", "slo_tpot=nan: Input should be a finite number"),
    ("--slo", "ttft=inf", "slo_ttft=inf: Input should be a finite number"),
    ("--slo", "ttft", "'' is not a number of seconds"),
    ("--slo", "ttft=fast", "'fast' is not a number of seconds"),
    ("--slo", "e2e=3", "write ttft=SECONDS,tpot=SECONDS or one of them"),
    ("--slo", "ttft=1,ttft=2", "write ttft=SECONDS,tpot=SECONDS or one of them"),
    ("--slo", "", "write ttft=SECONDS,tpot=SECONDS or one of them"),
]


@pytest.mark.parametrize(("option", "value", "message"), OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused(
    tmp_path: Path, option: str, value: object, message: str
) -> None:
    assert message in refused("run", f"{option}={value}", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["many", "nan", "1.5", ""])
@pytest.mark.parametrize("option", WHOLE)
def test_what_is_no_number_is_refused(option: str, value: str) -> None:
    ended = schedsim("run", f"{option}={value}")
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "Invalid value for" in ended.stderr
    assert option in ended.stderr


@pytest.mark.parametrize("option", ["--max-seqs", "--token-budget", "--concurrency", "--limit"])
def test_a_huge_number_means_no_bound(option: str) -> None:
    ended = schedsim("run", f"{option}={HUGE}", *(() if option == "--limit" else ("--limit", 20)))
    assert ended.exit_code == 0


@pytest.mark.parametrize("scale", ["1e30", "1e-300"])
def test_extreme_rates_run_to_the_end(scale: str) -> None:
    assert schedsim("run", "--rate-scale", scale, "--limit", 20).exit_code == 0


# ---- the place for the results


def test_results_are_never_overwritten(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "precious.txt").write_text("mine")
    for policies in (("vllm",), ("vllm", "static")):
        options = [part for policy in policies for part in ("--policy", policy)]
        message = refused("run", *options, "--out", used)
        assert f"{used} exists and is not empty" in message
        assert "choose another directory" in message
    assert names(used) == {"precious.txt"}


def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for policies in (("--policy", "vllm"), ("--policy", "vllm", "--policy", "static")):
        quiet = ("run", "-q", "--limit", 5, *policies, "--out")
        assert "is a file; choose another directory" in refused(*quiet, file)
        assert "cannot write" in refused(*quiet, file / "below")
        assert "File name too long" in refused(*quiet, tmp_path / ("x" * 300))
    assert file.read_text() == "mine"
    assert names(tmp_path) == {"file"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_directory_that_cannot_be_made_is_refused() -> None:
    message = refused("run", "-q", "--limit", 5, "--out", "/proc/schedsim")
    assert "cannot write /proc/schedsim" in message
    assert "choose another directory" in message


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert schedsim("run", "--limit", 5, "--out", tmp_path).exit_code == 0
    assert names(tmp_path) == RESULTS


def test_files_beside_the_results_need_a_place() -> None:
    for option in ("--decisions", "--timeline"):
        assert "name a directory with --out" in refused("run", option)


def test_the_message_about_rejections_names_the_policy_where_they_differ(tmp_path: Path) -> None:
    file = azure(tmp_path / "trace.csv", (1, 100, 3), (2, 2000, 4))
    small = ("--max-model-len", 4000, "--blocks", 130)
    ended = schedsim("run", file, *small, "--policy", "vllm", "--policy", "static")
    assert ended.exit_code == 0
    assert [n for n in ended.notes if n.startswith("note: static: ") and "rejected" in n]


@pytest.mark.parametrize("memory", ["contiguous,reserve=max", "buddy,reserve=max"])
def test_a_cache_without_room_for_one_maximum_is_an_error_at_the_start(memory: str) -> None:
    sizes = ("--blocks", 100, "--block-size", 16, "--max-model-len", 2000)
    ended = schedsim("run", "--memory", memory, *sizes)
    assert ended.exit_code == 2
    assert "reserve=max takes 12" in ended.stderr
    assert "lower --max-model-len, or raise --blocks" in ended.stderr
