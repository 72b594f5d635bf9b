"""Scheduling policies, one file each. A shipped one is a file here and a line in `POLICIES`."""

from schedsim.policies.andes import Andes
from schedsim.policies.base import Gate, Policy, PreemptMode, Release
from schedsim.policies.composed import Composed
from schedsim.policies.dlpm import DLPM
from schedsim.policies.edf import EDF
from schedsim.policies.las import LAS
from schedsim.policies.ltr import LTR
from schedsim.policies.mcsf import MCSF
from schedsim.policies.mlfq import MLFQ
from schedsim.policies.multi_bin import MultiBin, MultiBinContinuous
from schedsim.policies.nested_wait import NestedWait
from schedsim.policies.orca import Orca
from schedsim.policies.past_future import PastFuture
from schedsim.policies.priority import Priority
from schedsim.policies.qoserve import QoServe
from schedsim.policies.sarathi import Sarathi
from schedsim.policies.sglang import SGLang
from schedsim.policies.sjf import SJF
from schedsim.policies.srtf import SRTF
from schedsim.policies.static import Static
from schedsim.policies.tgi import TGI
from schedsim.policies.trtllm import TRTLLM
from schedsim.policies.vllm import VLLM, VLLM011, VLLM019, VLLM033
from schedsim.policies.vllm_v0 import VLLMv0
from schedsim.policies.vtc import VTC

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
        VTC,
        DLPM,
        EDF,
        QoServe,
        Andes,
        Orca,
        TGI,
        TRTLLM,
        PastFuture,
        SGLang,
        Composed,
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
    "DLPM",
    "EDF",
    "LAS",
    "LTR",
    "MCSF",
    "MLFQ",
    "POLICIES",
    "SJF",
    "SRTF",
    "TGI",
    "TRTLLM",
    "VLLM",
    "VLLM011",
    "VLLM019",
    "VLLM033",
    "VTC",
    "Andes",
    "Composed",
    "Gate",
    "MultiBin",
    "MultiBinContinuous",
    "NestedWait",
    "Orca",
    "PastFuture",
    "Policy",
    "PreemptMode",
    "Priority",
    "QoServe",
    "Release",
    "SGLang",
    "Sarathi",
    "Static",
    "VLLMv0",
]
