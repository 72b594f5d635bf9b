"""The timeline keeps to the Chrome trace event format, as Perfetto reads it.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

import gzip
import json
from typing import Any

import pytest

from tests.cli.commands import schedsim

PHASES = {"queued", "prefill", "decode", "preempted"}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("timeline") / "out"
    tight = ("--limit", 60, "--rate-scale", 8, "--blocks", 400, "--max-model-len", 5000)
    assert schedsim("run", "-q", *tight, "--timeline", "--out", out).exit_code == 0
    content = json.loads(gzip.decompress((out / "timeline.json.gz").read_bytes()))
    assert content["displayTimeUnit"] in ("ms", "ns")
    loaded: list[dict[str, Any]] = content["traceEvents"]
    return loaded


def test_every_event_has_the_fields_of_its_kind(events: list[dict[str, Any]]) -> None:
    assert {event["ph"] for event in events} == {"M", "X", "C"}
    for event in events:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert isinstance(event["ts"], float)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        else:
            assert all(isinstance(value, int) for value in event["args"].values())


def test_every_track_is_named_and_tells_what_it_should(events: list[dict[str, Any]]) -> None:
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    slices = [e for e in events if e["ph"] == "X"]
    assert {(e["pid"], e["tid"]) for e in slices} <= named
    (engine,) = {
        e["pid"] for e in events if e["name"] == "process_name" and e["args"]["name"] == "engine"
    }
    assert {e["name"] for e in slices if e["pid"] != engine} == PHASES
    assert {e["name"] for e in slices if e["pid"] == engine} == {"prefill", "decode", "mixed"}
    assert {e["name"] for e in events if e["ph"] == "C"} == {"free blocks", "running", "waiting"}
    assert all(e["pid"] == engine for e in events if e["ph"] == "C")
