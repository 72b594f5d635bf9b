"""A disk that fills up under the timeline alone costs the timeline, not the results."""

from pathlib import Path

import numpy as np
import pytest

from schedsim.errors import OutputError
from schedsim.policies import VLLM
from schedsim.results import RunDirectory, TimelineWriter
from schedsim.results.directory import GzipStream
from tests.cli.commands import RESULTS, manifest, names, only_error, summary
from tests.cli.test_broken_off import with_files_up_to
from tests.results.runs import make_trace, serve
from tests.results.test_directory import file_size_limit


def test_a_disk_that_fills_up_under_the_timeline_keeps_the_rest(tmp_path: Path) -> None:
    trace, out = tmp_path / "trace.csv", tmp_path / "out"
    # equal requests in large batches: a timeline far larger than the results
    trace.write_text("arrival,prompt_tokens,output_tokens\n" + "0.0,100,2\n" * 6000)
    ended = with_files_up_to(60_000, "run", "-q", trace, "--timeline", "--out", out)
    assert ended.exit_code == 2
    message = only_error(ended)
    assert f"cannot write {out / 'timeline.json.gz'}" in message
    assert "free some space or choose another directory" in message
    assert names(out) == RESULTS
    assert manifest(out)["complete"] is False
    assert summary(out)["requests"]["unfinished"] > 0


def test_a_writer_whose_file_broke_off_can_be_closed(tmp_path: Path) -> None:
    trace = make_trace([0.1 * row for row in range(400)], [3] * 400, [9] * 400)
    generator = np.random.default_rng(0)
    writer = TimelineWriter(RunDirectory.create(tmp_path, {}))
    with file_size_limit(4096):
        with pytest.raises(OutputError, match=r"timeline\.json\.gz: File too large"):
            serve(trace, VLLM(), lambda _: float(generator.random()), observers=(writer,))
        writer.close()
    writer.abort()
    assert names(tmp_path) == {"manifest.json"}


def test_an_aborted_stream_ignores_what_still_comes(tmp_path: Path) -> None:
    stream = GzipStream(tmp_path / "log.gz")
    stream.abort()
    stream.write("late")
    stream.close()
    assert names(tmp_path) == set()
