"""The scheduling core: requests come in, batches go out; no clock, no device."""

from schedsim.scheduler.batch import Batch, BatchShape, Chunk, Completion, ScheduledTokens
from schedsim.scheduler.scheduler import Scheduler
from schedsim.scheduler.step import Step
from schedsim.scheduler.token_log import TokenLog

__all__ = [
    "Batch",
    "BatchShape",
    "Chunk",
    "Completion",
    "ScheduledTokens",
    "Scheduler",
    "Step",
    "TokenLog",
]
