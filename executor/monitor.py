"""`DeviceMonitor`: reads a GPU's clocks, power and temperature once a second, by NVML."""

import threading
from collections.abc import Callable
from typing import Any

import torch

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


class DeviceMonitor:
    """Fills `log` from `start` to `stop`, in a thread of its own."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        """`clock` tells real seconds.

        Raises:
            ImportError: nvidia-ml-py is not installed.
            RuntimeError: NVML does not answer; see `open_monitor`.
        """
        import pynvml

        self.log = DeviceLog()
        self._nvml: Any = pynvml
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        try:
            pynvml.nvmlInit()
            name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        except pynvml.NVMLError as error:
            raise RuntimeError(f"NVML does not know {device}: {error}") from error
        self._masks = {
            getattr(pynvml, f"nvmlClocksEventReason{reason}", None)
            or getattr(pynvml, f"nvmlClocksThrottleReason{reason}"): cause
            for reason, cause in CAUSES.items()
        }

    def start(self, origin: float) -> None:
        """Begin; `origin` is what the clock told at the start of the run."""
        self._thread = threading.Thread(target=self._watch, args=(origin,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; without effect if it does not run."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def _watch(self, origin: float) -> None:
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
