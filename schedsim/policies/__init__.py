"""Scheduling policies, one file each. A shipped one is a file here and a line in `POLICIES`."""

from schedsim.policies.base import Gate, Policy, PreemptMode, Release
from schedsim.policies.las import LAS
from schedsim.policies.ltr import LTR
from schedsim.policies.mcsf import MCSF
from schedsim.policies.mlfq import MLFQ
from schedsim.policies.multi_bin import MultiBin, MultiBinContinuous
from schedsim.policies.nested_wait import NestedWait
from schedsim.policies.priority import Priority
from schedsim.policies.sarathi import Sarathi
from schedsim.policies.sjf import SJF
from schedsim.policies.srtf import SRTF
from schedsim.policies.static import Static
from schedsim.policies.vllm import VLLM, VLLM011, VLLM019, VLLM033
from schedsim.policies.vllm_v0 import VLLMv0

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        VLLM,
        VLLM033,
        VLLM019,
        VLLM011,
        VLLMv0,
        Sarathi,
        Static,
        SJF,
        SRTF,
        Priority,
        LAS,
        MLFQ,
        LTR,
        MultiBin,
        MultiBinContinuous,
        MCSF,
        NestedWait,
    )
}

__all__ = [
    "LAS",
    "LTR",
    "MCSF",
    "MLFQ",
    "POLICIES",
    "SJF",
    "SRTF",
    "VLLM",
    "VLLM011",
    "VLLM019",
    "VLLM033",
    "Gate",
    "MultiBin",
    "MultiBinContinuous",
    "NestedWait",
    "Policy",
    "PreemptMode",
    "Priority",
    "Release",
    "Sarathi",
    "Static",
    "VLLMv0",
]
