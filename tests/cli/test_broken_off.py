"""A run that the system breaks off: full disks, Ctrl-C, readers that go away."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.commands import (
    RESULTS,
    Ended,
    manifest,
    names,
    only_error,
    process,
    start,
    summary,
)

POLICIES = Path(__file__).parent / "bad_policies.py"
FULL = Path("/dev/full")


def with_files_up_to(size: int, *arguments: object) -> Ended:
    """Run a command that can write no file beyond `size` bytes."""
    return process(
        *arguments, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    )


def test_a_disk_that_fills_up_under_the_decisions_keeps_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = with_files_up_to(
        100_000, "run", "-q", "--limit", 100, "--decisions", "--timeline", "--out", out
    )
    assert ended.exit_code == 2
    message = only_error(ended)
    assert f"cannot write {out / 'decisions.jsonl.gz'}" in message
    assert "free some space or choose another directory" in message
    assert names(out) == RESULTS | {"timeline.json.gz"}
    assert manifest(out)["complete"] is False
    assert summary(out)["requests"]["unfinished"] > 0


def test_a_disk_that_fills_up_under_the_results_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = with_files_up_to(50_000, "run", "-q", "--limit", 300, "--out", out)
    assert ended.exit_code == 2
    assert f"cannot write {out / 'steps.parquet'}" in only_error(ended)
    assert names(out) == {"manifest.json", "requests.parquet"}
    assert manifest(out)["complete"] is False


def test_a_disk_that_is_full_from_the_start_stops_before_the_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = with_files_up_to(100, "run", "-q", "--limit", 20, "--out", out)
    assert ended.exit_code == 2
    assert f"cannot write {out / 'manifest.json'}" in only_error(ended)
    assert names(out) == set()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "arguments", [("run", "-q", "--limit", 5), ("run", "-q", "--limit", 5, "--json"), ("models",)]
)
def test_a_full_disk_under_stdout_is_one_message(arguments: tuple[object, ...]) -> None:
    with FULL.open("w") as stdout:
        ended = process(*arguments, stdout=stdout)
    assert ended.exit_code == 2
    assert "No space left on device; make room or write elsewhere" in only_error(ended)


@pytest.mark.parametrize("arguments", ["run -q --limit 5 --json", "policies", "models", "doctor"])
def test_a_reader_that_goes_away_is_no_error(arguments: str) -> None:
    running = start(*arguments.split())
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    stderr = running.stderr.read()
    assert running.wait(60) == 0
    assert stderr == ""
    running.stderr.close()


def wait_for(path: Path, size: int = 0) -> None:
    for _ in range(3000):
        if path.exists() and path.stat().st_size >= size:
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not come")


def end_of(running: "subprocess.Popen[str]") -> Ended:
    stdout, stderr = running.communicate(timeout=60)
    return Ended(running.returncode, stdout, stderr)


def test_ctrl_c_keeps_what_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = start("run", "--decisions", "--timeline", "--check=100000", "--out", out)
    wait_for(out / ".decisions.jsonl.gz.partial", 200_000)
    running.send_signal(signal.SIGINT)
    ended = end_of(running)
    assert ended.exit_code == 130
    last = len(pd.read_parquet(out / "steps.parquet")) - 1
    stopped = f"interrupted by the user after iteration {last}"
    assert only_error(ended) == f"error: {stopped}; what had finished is kept in {out}"
    assert "requests unfinished" in ended.stdout
    assert names(out) == RESULTS | {"decisions.jsonl.gz", "timeline.json.gz"}
    written = manifest(out)
    assert written["complete"] is False
    assert written["stopped"] == stopped
    counts = summary(out)["requests"]
    assert counts["finished"] > 0
    assert counts["unfinished"] > 0
    assert counts["finished"] + counts["rejected"] + counts["unfinished"] == 3000


def test_ctrl_c_ends_the_whole_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    policies = [part for name in ("vllm", "static", "sarathi") for part in ("--policy", name)]
    running = start("run", *policies, "--decisions", "--out", out)
    wait_for(out / "vllm" / ".decisions.jsonl.gz.partial", 50_000)
    running.send_signal(signal.SIGINT)
    ended = end_of(running)
    assert ended.exit_code == 130
    assert only_error(ended).endswith(f"kept in {out / 'vllm'}; never ran: static, sarathi")
    assert names(out) == {"vllm"}


def test_a_second_ctrl_c_ends_a_policy_that_does_not_come_back(tmp_path: Path) -> None:
    out, mark = tmp_path / "out", tmp_path / "mark"
    policy = f"{POLICIES}:ThinksForEver,mark={mark}"
    running = start("run", "--policy", policy, "--decisions", "--out", out)
    wait_for(mark)
    running.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    ended = end_of(running)
    assert ended.exit_code == 130
    assert "interrupted by the user" in only_error(ended)
    assert names(out) == RESULTS | {"decisions.jsonl.gz"}
    assert manifest(out)["complete"] is False
    assert summary(out)["requests"]["finished"] > 0


def test_ctrl_c_in_the_python_call_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import os, signal, schedsim\n"
        "class Presses(schedsim.Policy):\n"
        "    def schedule(self, step):\n"
        "        if step.iteration == 50:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        super().schedule(step)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n"
        f"    schedsim.simulate(schedsim.sample_trace(), Presses(), out={str(out)!r})\n"
        "except KeyboardInterrupt:\n"
        "    print('pressed', signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "pressed True\n", done.stderr
    assert names(out) == RESULTS
    assert manifest(out)["complete"] is False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
def test_reading_parquet_starts_no_thread() -> None:
    # A thread of Arrow that was still up at exit aborted one short command in ten.
    code = (
        "import os, pyarrow.parquet, schedsim\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "before = threads()\n"
        "schedsim.sample_trace()\n"
        "print(threads() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stderr
