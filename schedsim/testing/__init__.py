"""The test kit: memory managers and policies, shipped or your own, held against what must hold.

Needs Hypothesis (`pip install 'schedsim[testing]'`); nothing else in schedsim imports this.
"""

from schedsim.testing.allocator_check import check_allocator
from schedsim.testing.allocator_machine import AllocatorMachine
from schedsim.testing.claims import (
    NON_PREEMPTIVE,
    WORK_CONSERVING,
    Claim,
    Fair,
    NonPreemptive,
    StarvationFree,
    WorkConserving,
)
from schedsim.testing.foreign import ForeignAllocator, adapt
from schedsim.testing.policy_check import check_policy
from schedsim.testing.strategies import Capacity, capacities, settings, traces
from schedsim.testing.violations import AllocatorViolation, PolicyViolation
from schedsim.testing.watch import Beyond

__all__ = [
    "NON_PREEMPTIVE",
    "WORK_CONSERVING",
    "AllocatorMachine",
    "AllocatorViolation",
    "Beyond",
    "Capacity",
    "Claim",
    "Fair",
    "ForeignAllocator",
    "NonPreemptive",
    "PolicyViolation",
    "StarvationFree",
    "WorkConserving",
    "adapt",
    "capacities",
    "check_allocator",
    "check_policy",
    "settings",
    "traces",
]
