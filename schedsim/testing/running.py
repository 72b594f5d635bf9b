"""A run of a policy under a `Watch`, and the twins of a trace that must be decided alike."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from schedsim.config import RunSettings
from schedsim.content import Content
from schedsim.errors import PolicyError
from schedsim.experiments.setup import prepare_run
from schedsim.output_limit import default_form, limit_outputs
from schedsim.policies.base import Policy
from schedsim.testing.claims import Claim
from schedsim.testing.record import IterationRecord
from schedsim.testing.violations import PolicyViolation
from schedsim.testing.watch import Beyond, Watch
from schedsim.traces.trace import PromptBlocks, Trace

PolicyFactory = Callable[[], Policy]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run left: its records, the rows rejected, and which rule it broke, if any."""

    records: list[IterationRecord]
    rejected: frozenset[int]
    violation: PolicyViolation | None


def run_watched(
    make_policy: PolicyFactory,
    trace: Trace,
    settings: RunSettings,
    *,
    claims: Sequence[Claim] = (),
    beyond: Collection[Beyond] = (),
    strict: bool = True,
) -> Ran:
    """Simulate a new policy on `trace` and hold it against every rule; not `strict`: record it."""
    own = {row: row for row in range(len(trace))}
    return _run(make_policy, trace, settings, trace, own, claims, beyond, strict)


def run_renamed(make_policy: PolicyFactory, trace: Trace, settings: RunSettings) -> Ran:
    """The same, but for the ids: they have gaps, in the order that they had.

    Requests that are too long for the engine, which rejects them before the policy sees them, take
    the ids between.
    """
    assert settings.max_model_len is not None, "settings of the kit name the context"
    renamed, ids = _with_gaps(trace, settings.max_model_len)
    own = {request_id: row for row, request_id in enumerate(ids)}
    return _run(make_policy, renamed, settings, trace, own, (), (), False)


def with_other_lengths(trace: Trace, others: Sequence[int], kept: Collection[int]) -> Trace:
    """The trace with true lengths from 1 to what they were, which `others` choose.

    The rows `kept` keep theirs: who is rejected for its length must be rejected again.
    """
    lengths = [
        length if row in kept else 1 + other % length
        for row, (length, other) in enumerate(
            zip(trace.output_tokens.tolist(), others, strict=True)
        )
    ]
    limits = trace.max_output_tokens
    return replace(
        trace,
        output_tokens=np.array(lengths, dtype=np.int32),
        max_output_tokens=trace.output_tokens if limits is None else limits,
    )


def _run(
    make_policy: PolicyFactory,
    trace: Trace,
    settings: RunSettings,
    original: Trace,
    rows: dict[int, int],
    claims: Sequence[Claim],
    beyond: Collection[Beyond],
    strict: bool,
) -> Ran:
    policy = make_policy()
    prepared = prepare_run(trace, settings, policy=policy, check_every=1 if strict else None)
    assert settings.max_model_len is not None, "settings of the kit name the context"
    outputs = limit_outputs(trace, default_form(trace), settings.max_model_len)
    content = Content.of(trace, outputs)
    watch = Watch(
        original,
        settings,
        policy,
        content,
        claims=claims,
        beyond=beyond,
        rows=rows,
        block_size=prepared.backend._scheduler.kv_cache.block_size,
        strict=strict,
    )
    watch.attach(prepared.backend)
    failure = None
    try:
        prepared.backend.run()
    except PolicyError as error:
        failure = _violation_of(str(error))
    except Exception as error:  # a policy that writes to private state breaks anything
        failure = PolicyViolation("books", f"{type(error).__name__}: {error}")
    ended = prepared.backend.ended
    if failure is None:
        watch.ended(prepared.backend._scheduler, [r for r in ended if r.id in rows])
    rejected = frozenset(rows[request_id] for request_id in ended.rejected() if request_id in rows)
    return Ran(watch.records, rejected, watch.violation or failure)


def _violation_of(message: str) -> PolicyViolation:
    rule, _, problem = message.partition(": ")
    if rule in ("deadlock", "livelock"):
        return PolicyViolation(rule, problem)
    return PolicyViolation("error", message)


def _with_gaps(trace: Trace, max_model_len: int) -> tuple[Trace, list[int]]:
    """The trace with rows between its own that no such engine takes; the ids of its own."""
    sources: list[int] = []
    ids: list[int] = []
    for row in range(len(trace)):
        sources += [row] * (1 + row % 3)
        ids.append(len(sources))
        sources.append(row)
    own = np.zeros(len(sources), dtype=np.bool_)
    own[ids] = True
    take = np.array(sources)
    columns = {name: column[take] for name, column in trace.columns().items()}
    columns["prompt_tokens"] = np.where(own, columns["prompt_tokens"], max_model_len).astype(
        np.int32
    )
    if trace.parent is not None:
        new_ids = np.array([*ids, -1])  # a parent of -1 stays one
        columns["parent"] = np.where(own, new_ids[columns["parent"]], -1)
    blocks = trace.blocks
    if blocks is not None:
        lengths = np.where(own, np.diff(blocks.offsets)[take], 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        blocks = PromptBlocks(blocks.block_size, offsets, blocks.ids)
    return replace(trace, blocks=blocks, **columns), ids
