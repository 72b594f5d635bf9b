"""What a run of a sweep is called, and what its settings are."""

import os
from pathlib import Path

import pytest

from schedsim.errors import ConfigError
from schedsim.sweep.config import SweepConfig
from schedsim.sweep.points import Point, points_of


def test_parameters_go_into_the_specs_that_they_belong_to() -> None:
    point = Point(
        (
            ("policy", "sarathi"),
            ("policy.chunk_size", 256),
            ("arrivals", "gamma:cv=2"),
            ("arrivals.rate", 4.5),
            ("memory", "paged"),
            ("memory.prefix_caching", True),
        )
    )
    settings = point.settings()
    assert settings.policy == "sarathi,chunk_size=256"
    assert settings.arrivals == "gamma:cv=2,rate=4.5"
    assert settings.memory == "paged,prefix_caching=true"
    assert point.columns()["policy.chunk_size"] == 256
    with pytest.raises(ConfigError, match="has it already"):
        Point((("policy", "sarathi,chunk_size=1"), ("policy.chunk_size", 2))).settings()


def test_a_run_that_two_grids_name_is_made_once() -> None:
    grids = [{"rate_scale": [1.0, 2.0]}, {"rate_scale": [2.0, 4.0], "seed": [0]}]
    points = points_of(SweepConfig.model_validate({"grid": grids}))
    assert [point.settings().rate_scale for point in points] == [1.0, 2.0, 4.0]


def test_a_sweep_without_a_grid_is_one_run() -> None:
    (point,) = points_of(SweepConfig(settings={"limit": 5}))
    assert point.settings().limit == 5
    assert point.trace == "sample"


def test_a_key_follows_settings_and_the_content_of_files(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival,prompt_tokens,output_tokens\n0,1,1\n")
    point = Point((("trace", str(trace)), ("seed", 1)))
    first = point.key()
    assert first == Point((("seed", 1), ("trace", str(trace)))).key()
    assert first != Point((("trace", str(trace)), ("seed", 2))).key()
    trace.write_text("arrival,prompt_tokens,output_tokens\n0,1,2\n")
    os.utime(trace, ns=(1, 1))
    assert point.key() != first
    policy = tmp_path / "mine.py"
    policy.write_text("a = 1")
    mine = Point((("policy", f"{policy}:Mine,alpha=2"),))
    before = mine.key()
    policy.write_text("a = 2")
    os.utime(policy, ns=(1, 1))
    assert mine.key() != before


def test_a_key_follows_the_kernel_tables_of_a_folder(tmp_path: Path) -> None:
    table = tmp_path / "dense.csv"
    table.write_text("1")
    point = Point((("step_time", f"tables:{tmp_path},graphs=8"),))
    before = point.key()
    assert before != Point((("step_time", f"tables:{tmp_path}"),)).key()
    table.write_text("2")
    os.utime(table, ns=(1, 1))
    assert point.key() != before
