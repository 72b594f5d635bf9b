"""The results contract: what a backend records, what is computed of it, what is written."""

from schedsim.results.decisions import DecisionWriter
from schedsim.results.directory import RunDirectory, check_unused
from schedsim.results.manifest import build_manifest, speed
from schedsim.results.record import SLO, RunRecord
from schedsim.results.request_log import RequestLog
from schedsim.results.result import Result, build_result
from schedsim.results.step_log import StepLog
from schedsim.results.table import render_table
from schedsim.results.timeline import TimelineWriter
from schedsim.results.trail import TrailWriter

__all__ = [
    "SLO",
    "DecisionWriter",
    "RequestLog",
    "Result",
    "RunDirectory",
    "RunRecord",
    "StepLog",
    "TimelineWriter",
    "TrailWriter",
    "build_manifest",
    "build_result",
    "check_unused",
    "render_table",
    "speed",
]
