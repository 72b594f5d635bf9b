"""What runs beside the engine, and the small parts of the GPU's path that need none."""

import time

import pytest

torch = pytest.importorskip("torch")

from schedsim.executor.block_units import BlockUnits
from schedsim.executor.device import room_for_cache
from schedsim.executor.doorbell import Doorbell
from schedsim.executor.graphs import MIXED_SIZES, Graphs, decode_sizes, size_for
from schedsim.executor.monitor import open_monitor
from schedsim.results.device_log import DeviceLog, DeviceState


def test_requests_come_at_their_times_while_the_engine_is_busy() -> None:
    due = [(0.0, 3), (0.02, 1), (0.05, 2), (9.0, 4)]
    doorbell = Doorbell(due, time.perf_counter)
    origin = time.perf_counter()
    doorbell.start(origin)
    while time.perf_counter() - origin < 0.1:  # an engine that never waits
        pass
    before = time.perf_counter()
    doorbell.stop()
    assert time.perf_counter() - before < 0.5
    assert list(doorbell.times) == [3, 1, 2]
    for at, request in due[:3]:
        assert at <= doorbell.times[request] < at + 0.04


def test_a_device_log_names_what_throttled() -> None:
    log = DeviceLog()
    assert log.summary() == {"seconds": 0}
    assert log.table().num_rows == 0
    log.states += [
        DeviceState(0.0, 1980, 3201, 300.0, 40, ""),
        DeviceState(1.0, 1500, 3201, 700.5, 61, "power cap+temperature"),
        DeviceState(2.0, 1700, 3201, 690.0, 63, "power cap"),
    ]
    summary = log.summary()
    assert summary["seconds"] == 3
    assert summary["throttled"] is True
    assert summary["throttled_seconds"] == {"power cap": 2, "temperature": 1}
    assert summary["sm_clock_mhz"] == {"min": 1500, "max": 1980}
    assert summary["power_w"] == {"min": 300.0, "max": 700.5}
    assert log.table().column("time").to_pylist() == [0.0, 1.0, 2.0]


def test_a_cpu_has_no_monitor() -> None:
    assert open_monitor(torch.device("cpu"), time.perf_counter) is None


@pytest.mark.parametrize("rows", [1, 3, 8, 100, 256, 600])
def test_every_number_of_rows_has_a_size(rows: int) -> None:
    sizes = decode_sizes(rows)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == rows
    for count in range(1, rows + 1):
        size = size_for(sizes, count)
        assert size is not None
        assert count <= size <= max(1.5 * count, count + 8)
    assert size_for(sizes, rows + 1) is None
    assert list(MIXED_SIZES) == sorted(set(MIXED_SIZES))


def test_without_a_gpu_a_step_is_called_each_time() -> None:
    graphs = Graphs(torch.device("cpu"))
    calls: list[int] = []

    def step() -> torch.Tensor:
        calls.append(1)
        return torch.tensor([len(calls)])

    graphs.capture(("decode", 1), step)
    assert graphs.run(("decode", 1), step).item() == 1
    assert graphs.run(("decode", 1), step).item() == 2


def test_large_blocks_are_counted_through_keys_and_values() -> None:
    assert BlockUnits.of_size(8) is None
    assert BlockUnits.of_size(64) == BlockUnits(64, 1)
    units = BlockUnits.of_size(1024)
    assert units == BlockUnits(256, 4)
    table = units.of([3, 1])
    assert table.tolist() == [24, 25, 26, 27, 8, 9, 10, 11]
    assert units.from_place([3, 1], 4).tolist() == [8, 9, 10, 11]
    assert units.blocks(table) == [3] * 4 + [1] * 4


def test_a_forward_pass_keeps_its_memory_from_the_cache() -> None:
    gpu = torch.device("cuda")
    room, why = room_for_cache(gpu, 100 * 2**30, 2**30)
    assert room == 100 * 2**30 - 2**30 - 5 * 2**29
    assert why.startswith("what 3.5 GiB for a forward pass")
    assert room_for_cache(gpu, 2**30, 2**30)[0] == 0
