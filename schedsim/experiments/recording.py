"""`Recording`: another scheduler's decisions with the inputs that led to them, from one file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schedsim.config import MAX_BLOCKS
from schedsim.errors import ResultError
from schedsim.results.decision_file import DecisionFile
from schedsim.traces.trace import PromptBlocks, Trace, TraceSource

SUFFIXES = (".jsonl", ".jsonl.gz")


class RecordedRequest(BaseModel):
    """A request of a recording, as its `meta` describes it.

    The first `prefix_len` prompt tokens are those of all requests in its `prefix_group`; a prompt
    with `replay_of` begins with that request's prompt and output instead. `max_tokens` is the
    output limit that the scheduler was told, by default the true length `output_len`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str
    arrival_step: int = Field(ge=0)
    prompt_len: int = Field(ge=1, lt=2**31)
    output_len: int = Field(ge=1, lt=2**31)
    priority: int = 0
    prefix_group: str | None = None
    prefix_len: int = Field(0, ge=0)
    replay_of: str | None = None
    max_tokens: int | None = Field(None, ge=1)


class RecordedSettings(BaseModel):
    """The settings in a recording's `meta`, named as vLLM names them, and its requests.

    What it does not know it refuses: a setting that a replay ignores could change any decision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = ""
    num_blocks: int = Field(ge=1, le=MAX_BLOCKS)
    block_size: int = Field(ge=1, le=65536)
    max_num_seqs: int = Field(ge=1)
    max_num_batched_tokens: int = Field(ge=1)
    max_model_len: int = Field(ge=2, lt=2**31)
    enable_chunked_prefill: bool
    enable_prefix_caching: bool
    policy: Literal["fcfs", "priority"]
    long_prefill_token_threshold: int = Field(ge=0)
    long_prefill_token_threshold_adaptive: bool = False
    prefill_schedule_interval: int = Field(1, ge=1)
    watermark: float = Field(ge=0, lt=1)
    scheduler_reserve_full_isl: bool
    async_scheduling: bool = False
    requests: list[RecordedRequest] = Field(min_length=1)
    vllm: str = ""
    torch: str = ""
    python: str = ""

    def parameters(self) -> dict[str, str]:
        """The policy's parameters as they stand in a spec of `vllm`."""
        values: dict[str, Any] = {
            "policy": self.policy,
            "whole_sequence": self.scheduler_reserve_full_isl,
            "watermark": self.watermark,
            "long_prefill_threshold": self.long_prefill_token_threshold,
            "adaptive_threshold": self.long_prefill_token_threshold_adaptive,
            "chunked_prefill": self.enable_chunked_prefill,
            "prefill_interval": self.prefill_schedule_interval,
        }
        return {name: str(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded run: the `file` with its records, its settings, its requests by their arrival."""

    file: DecisionFile
    settings: RecordedSettings
    requests: list[RecordedRequest]

    def trace(self) -> Trace:
        """The requests as a trace, a row each: prefix groups as block chains, replays by parents.

        Raises:
            ResultError: a request's prompt is not what it says.
        """
        row_of = {request.id: row for row, request in enumerate(self.requests)}
        groups = sorted({r.prefix_group for r in self.requests if r.prefix_group is not None})
        longest = max(request.prefix_len for request in self.requests)
        parents, chains = [], []
        for row, request in enumerate(self.requests):
            parent = self._parent(row, row_of)
            parents.append(parent)
            chain = range(0)
            if parent < 0 and request.prefix_group is not None:
                first = groups.index(request.prefix_group) * longest
                chain = range(first, first + request.prefix_len)
            if len(chain) > request.prompt_len:
                raise self._wrong(request, f"prefix_len {len(chain)} exceeds its prompt_len")
            chains.append(chain)
        ids = [number for chain in chains for number in chain]
        return Trace(
            np.array([request.arrival_step for request in self.requests], dtype=np.float64),
            np.array([request.prompt_len for request in self.requests], dtype=np.int32),
            np.array([request.output_len for request in self.requests], dtype=np.int32),
            TraceSource(self.file.name, "recording", rows_read=len(self.requests)),
            parent=np.array(parents, dtype=np.int64),
            think_s=np.zeros(len(self.requests)),
            blocks=PromptBlocks(
                1,
                np.cumsum([0, *map(len, chains)], dtype=np.int64),
                np.array(ids, dtype=np.int64),
            ),
        )

    def _parent(self, row: int, row_of: dict[str, int]) -> int:
        request = self.requests[row]
        if request.replay_of is None:
            return -1
        parent = row_of.get(request.replay_of)
        if parent is None or parent >= row:
            raise self._wrong(request, f"replay_of {request.replay_of!r} is no earlier request")
        said = self.requests[parent].prompt_len + self.requests[parent].output_len
        if said > request.prompt_len:
            raise self._wrong(
                request, f"prompt_len {request.prompt_len} is below the {said} tokens it replays"
            )
        return parent

    def _wrong(self, request: RecordedRequest, problem: str) -> ResultError:
        return ResultError(f"{self.file.path}, line 1: meta, request {request.id!r}: {problem}")


def open_recording(path: Path) -> Recording:
    """Read the inputs of the recording at `path`; its records are read as they are compared.

    Raises:
        ResultError: there is none, or its `meta` is not one of a recording; names the field.
    """
    file = DecisionFile(path)
    if "requests" not in file.meta:
        raise ResultError(
            f"{file.path}, line 1: meta has no 'requests', so it cannot be run again; two runs of "
            "ours are compared by schedsim diff"
        )
    try:
        settings = RecordedSettings.model_validate(file.meta)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        told = problem["msg"]
        if problem["type"] == "extra_forbidden":
            told = "is a setting that no replay knows of, and it might change any decision"
        more = error.error_count() - 1
        raise ResultError(
            f"{file.path}, line 1: meta.{place}: {told}" + (f" (and {more} more)" if more else "")
        ) from None
    requests = sorted(settings.requests, key=lambda request: request.arrival_step)
    recording = Recording(file, settings, requests)
    seen: set[str] = set()
    for request in requests:
        if request.id in seen:
            raise recording._wrong(request, "its id stands twice")
        seen.add(request.id)
    return recording


def find_recordings(paths: list[Path]) -> list[Path]:
    """The files themselves, and those below the folders, in order.

    Raises:
        ResultError: a path is not there, or a folder holds no recording.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise ResultError(f"{path}: no such file or folder; check the path")
            found.append(path)
            continue
        below = sorted(f for f in path.rglob("*") if f.name.endswith(SUFFIXES) and f.is_file())
        if not below:
            raise ResultError(f"{path} holds no {' or '.join(SUFFIXES)} file; check the path")
        found += below
    return found
