"""The simulator: the scheduling core on a SimPy clock, with a step-time model for the device."""

from schedsim.simulator.simulation import Simulation

__all__ = ["Simulation"]
