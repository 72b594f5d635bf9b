"""Result files are whole or absent, and every failure says what to do."""

import gzip
import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from schedsim.errors import OutputError
from schedsim.results import SLO, RunDirectory, build_manifest, build_result
from schedsim.results.directory import GzipStream, replacing
from tests.results.runs import VLLM, make_trace, serve


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Writing beyond `limit` bytes fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_the_manifest_is_first_incomplete_and_last_complete(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "a" / "b", {"seed": 3})
    path = tmp_path / "a" / "b" / "manifest.json"
    assert json.loads(path.read_text()) == {"seed": 3, "complete": False}
    directory.finish({"speed": 1.5}, complete=True)
    assert json.loads(path.read_text()) == {"seed": 3, "speed": 1.5, "complete": True}
    assert names(tmp_path / "a" / "b") == ["manifest.json"]


def test_an_empty_directory_is_taken_and_a_used_one_is_refused(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, {})
    with pytest.raises(OutputError, match=r"not empty.*choose another directory"):
        RunDirectory.create(tmp_path, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file"):
        RunDirectory.create(tmp_path / "file", {})
    with pytest.raises(OutputError, match="Not a directory"):
        RunDirectory.create(tmp_path / "file" / "below", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        RunDirectory.create(tmp_path / "below", {})


def test_a_full_disk_names_the_file_and_leaves_no_half_of_it(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", {"note": "kept"})
    noise = np.random.default_rng(0).integers(0, 255, 200_000).astype(np.uint8)
    text = noise.tobytes().hex()
    with file_size_limit(4096):
        with pytest.raises(OutputError, match=r"summary\.json: File too large; free some space"):
            directory.write_json("summary.json", {"text": text})
        with pytest.raises(OutputError, match=r"timeline\.json\.gz"):
            directory.open_gz("timeline.json.gz").write(text)
        with pytest.raises(OutputError, match=r"manifest\.json"):
            directory.finish({"text": text}, complete=True)
    assert names(tmp_path / "run") == ["manifest.json"]
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["complete"] is False


def test_a_table_that_does_not_fit_leaves_no_half_of_it(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", {})
    trace = make_trace([0.1 * row for row in range(300)], [3] * 300, [2] * 300)
    result = build_result(serve(trace, VLLM(), lambda row: 0.1 + row / 1e5).record)
    with file_size_limit(4096), pytest.raises(OutputError, match=r"requests\.parquet"):
        result.write(directory)
    assert names(tmp_path / "run") == ["manifest.json"]


def test_an_interrupt_while_writing_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, {})

    def write_half() -> None:
        with replacing(tmp_path / "table") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert names(tmp_path) == ["manifest.json"]


def test_a_stream_has_its_name_only_when_closed(tmp_path: Path) -> None:
    stream = GzipStream(tmp_path / "log.gz")
    stream.write("one\n")
    assert names(tmp_path) == [".log.gz.partial"]
    stream.write("two\n")
    stream.close()
    stream.close()
    stream.abort()
    assert names(tmp_path) == ["log.gz"]
    assert gzip.decompress((tmp_path / "log.gz").read_bytes()) == b"one\ntwo\n"
    dropped = GzipStream(tmp_path / "other.gz")
    dropped.abort()
    dropped.abort()
    assert names(tmp_path) == ["log.gz"]


def test_equal_runs_write_equal_bytes(tmp_path: Path) -> None:
    trace = make_trace([0.0, 0.2, 0.4], [30, 9, 12], [20, 9, 1], [0, 1, -1])
    for name in ("one", "two"):
        result = build_result(serve(trace, VLLM(), lambda _: 0.1, slo=SLO(1.0, 0.2)).record)
        directory = RunDirectory.create(tmp_path / name, {})
        result.write(directory)
        stream = directory.open_gz("text.gz")
        stream.write("text")
        stream.close()
    for file in ("requests.parquet", "steps.parquet", "summary.json", "text.gz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_tables_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    import pyarrow.parquet

    result = build_result(serve(make_trace([0.0], [9], [5]), VLLM(), lambda _: 0.1).record)
    result.write(RunDirectory.create(tmp_path / "run", {}))
    read = pyarrow.parquet.read_table(tmp_path / "run" / "steps.parquet")
    assert read.equals(result.steps_table)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == result.summary


def test_the_manifest_says_what_ran_with_what() -> None:
    manifest = build_manifest(
        command=["schedsim", "run"],
        config={"blocks": 9},
        trace=make_trace([0.0], [1], [1]),
        seed=7,
        decision_lag=0,
        estimator=None,
    )
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["trace"]["name"] == "small"
    assert manifest["device"] == "cpu simulator"
    assert set(manifest["versions"]) == {"python", "schedsim", "numpy", "pyarrow", "simpy"}
