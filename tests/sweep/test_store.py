"""The directory of a sweep holds each run once, whatever it was killed in the middle of."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from schedsim.errors import OutputError, ResultError
from schedsim.sweep.rows import Row, rows_table
from schedsim.sweep.store import PARTS, RUNS, SWEEP, SweepStore, is_sweep, stored_rows

ROWS: list[Row] = [
    {"run": key, "trace": "sample", "seed": seed, "error": None, "makespan_s": seed + 0.5}
    for seed, key in enumerate(("a", "b", "c"))
]


def filled(path: Path) -> SweepStore:
    store = SweepStore(path, {"grid": {}})
    store.begin()
    for row in ROWS:
        store.put(row)
    return store


def test_what_is_put_is_there_again_with_the_same_values(tmp_path: Path) -> None:
    filled(tmp_path / "sweep").close()
    assert stored_rows(tmp_path / "sweep") == ROWS
    again = SweepStore(tmp_path / "sweep", {})
    again.finish(["c", "a", "b"])
    again.close()
    assert [row["run"] for row in stored_rows(tmp_path / "sweep")] == ["c", "a", "b"]
    assert not (tmp_path / "sweep" / PARTS).exists()


def test_a_kill_after_the_dataset_leaves_each_run_once(tmp_path: Path) -> None:
    store = filled(tmp_path / "sweep")
    pyarrow.parquet.write_table(rows_table(ROWS[:2]), tmp_path / "sweep" / RUNS)
    store.close()
    assert stored_rows(tmp_path / "sweep") == ROWS


def test_halves_of_files_count_for_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "sweep").close()
    (tmp_path / "sweep" / PARTS / ".d.json.partial").write_text('{"run": "d", "se')
    (tmp_path / "sweep" / f".{RUNS}.partial").write_bytes(b"PAR1")
    assert stored_rows(tmp_path / "sweep") == ROWS


def test_a_kill_before_anything_was_written_is_no_obstacle(tmp_path: Path) -> None:
    SweepStore(tmp_path / "sweep", {}).close()
    assert is_sweep(tmp_path / "sweep")
    assert SweepStore(tmp_path / "sweep", {}).rows == {}


def test_one_store_at_a_time(tmp_path: Path) -> None:
    first = filled(tmp_path / "sweep")
    with pytest.raises(OutputError, match="another process runs the sweep"):
        SweepStore(tmp_path / "sweep", {})
    first.close()
    SweepStore(tmp_path / "sweep", {}).close()


def test_what_is_damaged_or_of_another_version_is_told(tmp_path: Path) -> None:
    filled(tmp_path / "sweep").close()
    part = tmp_path / "sweep" / PARTS / "a.json"
    part.write_text("{")
    with pytest.raises(ResultError, match=r"a\.json cannot be read"):
        stored_rows(tmp_path / "sweep")
    (tmp_path / "sweep" / SWEEP).write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(ResultError, match="schema version 99"):
        stored_rows(tmp_path / "sweep")


def test_columns_keep_their_types_without_values() -> None:
    table = rows_table(ROWS)
    assert str(table.schema.field("error").type) == "string"
    assert str(table.schema.field("seed").type) == "int64"
    empty = rows_table([row | {"blocks": None, "goodput.whole.share": None} for row in ROWS])
    assert str(empty.schema.field("blocks").type) == "int64"
    assert str(empty.schema.field("goodput.whole.share").type) == "double"
