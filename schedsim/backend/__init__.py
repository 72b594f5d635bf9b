"""What the simulator and the engine on a device share: the loop without its clock, and a run."""

from schedsim.backend.base import Backend
from schedsim.backend.loop import EngineLoop, Observer

__all__ = ["Backend", "EngineLoop", "Observer"]
