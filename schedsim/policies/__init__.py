"""Scheduling policies, one file each. A shipped one is a file here and a line in `POLICIES`."""

from schedsim.policies.andes import Andes
from schedsim.policies.base import Gate, Policy, PreemptMode, Release
from schedsim.policies.composed import Composed
from schedsim.policies.dlpm import DLPM
from schedsim.policies.edf import EDF
from schedsim.policies.orca import Orca
from schedsim.policies.past_future import PastFuture
from schedsim.policies.qoserve import QoServe
from schedsim.policies.sarathi import Sarathi
from schedsim.policies.sglang import SGLang
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
    )
}

__all__ = [
    "DLPM",
    "EDF",
    "POLICIES",
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
    "Orca",
    "PastFuture",
    "Policy",
    "PreemptMode",
    "QoServe",
    "Release",
    "SGLang",
    "Sarathi",
    "Static",
    "VLLMv0",
]
