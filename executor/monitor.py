"""`DeviceMonitor`: reads a GPU's clocks, power and temperature once a second, by NVML."""

from collections.abc import Callable
from typing import Any

import torch

from schedsim.executor.beside import Beside
from schedsim.executor.device import device_uuid
from schedsim.results.device_log import DeviceLog, DeviceState

PERIOD = 1.0
"""Seconds between two readings."""

CAUSES = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware",
    "SwThermalSlowdown": "temperature",
    "HwThermalSlowdown": "hardware temperature",
    "HwPowerBrakeSlowdown": "power brake",
}
"""NVML's reasons for a lower clock than asked for, as the log names them."""


class DeviceMonitor(Beside):
    """Fills `log` from `start` to `stop`."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        """`clock` tells real seconds.

        Raises:
            ImportError: nvidia-ml-py is not installed.
            RuntimeError: NVML does not answer; see `open_monitor`.
        """
        import pynvml

        super().__init__()
        self.log = DeviceLog()
        self._nvml: Any = pynvml
        self._clock = clock
        uuid = device_uuid(device)
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            raise RuntimeError(f"NVML does not know {device}: {error}") from error
        self._masks = {
            getattr(pynvml, f"nvmlClocksEventReason{reason}", None)
            or getattr(pynvml, f"nvmlClocksThrottleReason{reason}"): cause
            for reason, cause in CAUSES.items()
        }

    def _work(self, origin: float) -> None:
        while not self._stop.is_set():
            try:
                self.log.states.append(self._read(self._clock() - origin))
            except self._nvml.NVMLError:
                return  # a device that is gone has no state; the run itself tells of that
            self._stop.wait(PERIOD)

    def _read(self, time: float) -> DeviceState:
        nvml, handle = self._nvml, self._handle
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        return DeviceState(
            time,
            int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "+".join(cause for mask, cause in self._masks.items() if reasons & mask),
        )


def open_monitor(device: torch.device, clock: Callable[[], float]) -> DeviceMonitor | None:
    """A monitor of a GPU; None for a CPU, or where NVML cannot be asked."""
    if device.type != "cuda":
        return None
    try:
        return DeviceMonitor(device, clock)
    except (ImportError, RuntimeError):
        return None
