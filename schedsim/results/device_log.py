"""`DeviceLog`: a device's clock, power and temperature, second by second."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pyarrow


class DeviceState(NamedTuple):
    """At `time` (s since the start of the run): clocks (MHz), power (W), temperature (°C).

    `throttled` names what holds the clock down, empty if nothing does.
    """

    time: float
    sm_clock_mhz: int
    memory_clock_mhz: int
    power_w: float
    temperature_c: int
    throttled: str


@dataclass(slots=True)
class DeviceLog:
    """The states of a device during a run, in order."""

    states: list[DeviceState] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """What the manifest says: extremes, and in how many seconds which cause throttled."""
        if not self.states:
            return {"seconds": 0}
        causes: dict[str, int] = {}
        for state in self.states:
            for cause in filter(None, state.throttled.split("+")):
                causes[cause] = causes.get(cause, 0) + 1
        return {
            "seconds": len(self.states),
            "throttled": bool(causes),
            "throttled_seconds": causes,
            "sm_clock_mhz": _extremes([state.sm_clock_mhz for state in self.states]),
            "power_w": _extremes([state.power_w for state in self.states]),
            "temperature_c": _extremes([state.temperature_c for state in self.states]),
        }

    def table(self) -> "pyarrow.Table":
        """A row a state."""
        import pyarrow

        columns = zip(*self.states, strict=True) if self.states else [[]] * 6
        return pyarrow.table(dict(zip(DeviceState._fields, map(list, columns), strict=True)))


def _extremes(values: list[Any]) -> dict[str, Any]:
    return {"min": min(values), "max": max(values)}
