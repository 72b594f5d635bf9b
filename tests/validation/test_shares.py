"""Shares of a protocol: every run is of one of them, and what they measured is put together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ResultError
from schedsim.experiments.protocol.index import CapacityEntry, CellEntry, Index, load_indices
from schedsim.experiments.protocol.plan import WHOLE, Protocol, Share, read_protocol

TEST = read_protocol(Path(__file__).resolve().parents[2] / "validation" / "cells.toml")


@given(st.integers(1, 30), st.integers(0, 50), st.integers(1, 12))
def test_all_repeats_are_dealt_out_and_evenly(repeats: int, place: int, shares: int) -> None:
    dealt = [Share(number, shares).of(repeats, place) for number in range(1, shares + 1)]
    assert sum(dealt) == repeats
    assert max(dealt) - min(dealt) <= 1


@given(st.integers(0, 50), st.integers(1, 12))
def test_the_first_repeat_is_of_the_next_share_at_the_next_place(place: int, shares: int) -> None:
    def first(place: int) -> int:
        (number,) = (n for n in range(1, shares + 1) if Share(n, shares).of(1, place))
        return number

    assert first(place + 1) == first(place) % shares + 1


def runs_of(protocol: Protocol, share: Share) -> int:
    """How many runs of a protocol are of a share."""
    capacities = range(len(protocol.capacities()))
    return sum(share.of(protocol.capacity_repeats, place) for place in capacities) + sum(
        share.of(protocol.repeats_of(cell), place) for place, cell in enumerate(protocol.cells)
    )


def test_two_shares_of_the_test_have_as_many_runs_and_every_cell() -> None:
    first, second = (runs_of(TEST, Share(number, 2)) for number in (1, 2))
    assert abs(first - second) <= 2
    assert first + second == runs_of(TEST, WHOLE) == 63
    for place, cell in enumerate(TEST.cells):
        for number in (1, 2):
            assert Share(number, 2).of(TEST.repeats_of(cell), place) >= 1


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Those of two shares, with the same capacity and a run of it, and one of the same cell."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        index().write(folder)
    return folders


def index(*, device: str = "GPU", requests: int = 1000, rate: float = 2.0) -> Index:
    """An index of one capacity and one cell."""
    capacity = CapacityEntry(requests=requests, requests_per_s=[2.5], runs=["runs/c/1"])
    cell = CellEntry(rate=rate, runs=["runs/x/1"])
    return Index(device=device, capacities={"c": capacity}, cells={"x": cell})


def test_folders_of_several_gpus_are_one(folders: list[Path]) -> None:
    whole = load_indices(folders)
    assert whole.cells["x"].runs == [str(folder.resolve() / "runs/x/1") for folder in folders]
    assert whole.capacities["c"].runs == [str(folder.resolve() / "runs/c/1") for folder in folders]
    assert whole.capacities["c"].requests_per_s == [2.5, 2.5]


def test_a_folder_counts_once(folders: list[Path]) -> None:
    again = folders[0].parent / "b" / ".." / "a"
    with pytest.raises(ResultError, match="is there twice, and its runs would count twice"):
        load_indices([folders[0], again])


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (index(device="another"), "holds runs of another, not of GPU"),
        (index(rate=2.1), "runs of x with 2.1 a second requests, another folder with 2 a second"),
        (index(requests=1250), "of the capacity of c with 1,250 requests, another folder with"),
    ],
)
def test_what_is_no_repeat_is_refused(folders: list[Path], other: Index, why: str) -> None:
    other.write(folders[1])
    with pytest.raises(ResultError, match=why):
        load_indices(folders)
