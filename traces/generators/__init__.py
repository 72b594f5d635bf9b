"""Synthetic traces: arrival processes, length laws, tenants, sessions, and presets of them."""

from schedsim.traces.generators.arrivals import PROCESSES, ArrivalProcess, parse_arrivals
from schedsim.traces.generators.lengths import LAWS, LengthLaw, parse_law
from schedsim.traces.generators.presets import PRESETS, Preset, find_preset, generate
from schedsim.traces.generators.sessions import SessionModel, parse_sessions
from schedsim.traces.generators.tenants import ClientMix, parse_tenants
from schedsim.traces.generators.workload import Workload, mean_rate, with_rate

__all__ = [
    "LAWS",
    "PRESETS",
    "PROCESSES",
    "ArrivalProcess",
    "ClientMix",
    "LengthLaw",
    "Preset",
    "SessionModel",
    "Workload",
    "find_preset",
    "generate",
    "mean_rate",
    "parse_arrivals",
    "parse_law",
    "parse_sessions",
    "parse_tenants",
    "with_rate",
]
