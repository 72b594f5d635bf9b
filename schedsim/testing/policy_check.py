"""`check_policy`: random traces and settings through the simulator, and the smallest that fails."""

import inspect
import shlex
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from schedsim.config import RunSettings, make_settings
from schedsim.errors import ConfigError
from schedsim.policies import POLICIES
from schedsim.policies.base import Policy
from schedsim.policies.loading import make_policy
from schedsim.testing.claims import Claim
from schedsim.testing.record import IterationRecord, draw_timeline
from schedsim.testing.running import (
    PolicyFactory,
    Ran,
    run_renamed,
    run_watched,
    with_other_lengths,
)
from schedsim.testing.strategies import MEMORIES, settings, traces
from schedsim.testing.violations import Enough, PolicyViolation
from schedsim.testing.watch import Beyond
from schedsim.traces.trace import Trace
from schedsim.traces.writing import write_trace

SHIPPED: Mapping[str, frozenset[Beyond]] = MappingProxyType(
    dict.fromkeys(("vllm-v0", "mcsf", "past-future"), frozenset({Beyond.LONE_PREFILL}))
)
"""What shipped policies do beyond the rules, by the documentation of each."""


@dataclass(frozen=True, slots=True)
class Case:
    """A trace, the settings of the engine that serves it, and true lengths that it might have."""

    trace: Trace
    settings: RunSettings
    others: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Requests and tokens."""
        tokens = self.trace.prompt_tokens.sum() + self.trace.output_tokens.sum()
        return len(self.trace), int(tokens)


@dataclass(frozen=True, slots=True)
class _Failure:
    case: Case
    violation: PolicyViolation
    records: list[IterationRecord]


def check_policy(
    policy: str | PolicyFactory,
    *,
    claims: Sequence[Claim] = (),
    beyond: Collection[Beyond] | None = None,
    examples: int | None = None,
    max_shrinks: int = 200,
    memories: Sequence[str] = MEMORIES,
    decision_lags: Sequence[int] = (0, 1),
    trace_strategy: st.SearchStrategy[Trace] | None = None,
    folder: Path | str | None = None,
) -> None:
    """Hold `policy`, a spec string or a function that makes one, against rules and its `claims`.

    For every drawn trace and settings it runs the simulator and asserts: tokens, blocks and
    requests are conserved; budget and seats are kept; nothing runs before it arrives; every
    request that was taken finishes once, with its length; no deadlock, no livelock, preemptions
    are bounded; two runs decide the same, also when the requests have other ids in the same order;
    other true lengths under the same limits change no decision before an end shows them, and
    nothing that stands on a request; `steady` keeps what it promises.

    `beyond` allows what the policy does by its nature (None: what a shipped one documents).
    `examples` None is the number of the Hypothesis profile in use, which also says whether draws
    are the same every time; after a failure `max_shrinks` smaller cases are tried. `memories` are
    specs of memory managers, `decision_lags` values of the setting. `trace_strategy` replaces the
    traces, `folder` says where a counterexample is written (default: a new temporary folder).

    Raises:
        ConfigError: no such policy, memory manager or folder.
        PolicyViolation: with the smallest trace found, its timeline and how to run it again.
    """
    make = _factory(policy)
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise ConfigError(f"folder={str(folder)!r} is no folder; name one, or leave it out")
    if beyond is None:
        name = make().name
        beyond = SHIPPED.get(name, frozenset()) if name in POLICIES else frozenset()
    spec = policy if isinstance(policy, str) else _spec_of(make())
    drawn = _cases(spec, trace_strategy, memories, decision_lags)
    search = _Search(make, claims, beyond, max_shrinks)
    failure = search.run(drawn, examples)
    if failure is not None:
        _report(failure, folder)


@st.composite
def _cases(
    draw: st.DrawFn,
    spec: str,
    trace_strategy: st.SearchStrategy[Trace] | None,
    memories: Sequence[str],
    lags: Sequence[int],
) -> Case:
    if trace_strategy is None:
        trace_strategy = traces(
            max_prompt=24,
            max_output=16,
            shared_prefixes=True,
            follow_ups=True,
            tenants=3,
            priorities=True,
            slos=True,
            predictions=True,
        )
    trace = draw(trace_strategy)
    chosen = draw(settings(trace, policy=spec, memories=memories, lags=lags))
    if chosen.predictor == "oracle":
        # As a column, so that a trace with other true lengths has the same predictions.
        trace = replace(trace, predicted_output=trace.output_tokens.astype(np.float64))
        chosen = chosen.model_copy(update={"predictor": "none"})
    others = draw(st.lists(st.integers(0, 63), min_size=len(trace), max_size=len(trace)))
    return Case(trace, chosen, tuple(others))


class _Search:
    """Looks for a case that breaks a rule, then for smaller ones that break the same."""

    def __init__(
        self,
        make: PolicyFactory,
        claims: Sequence[Claim],
        beyond: Collection[Beyond],
        max_shrinks: int,
    ) -> None:
        self._max_shrinks = max_shrinks
        self._make, self._claims, self._beyond = make, claims, beyond
        self._best: _Failure | None = None
        self._attempts = 0

    def run(self, drawn: st.SearchStrategy[Case], examples: int | None) -> _Failure | None:
        """The smallest failure found."""
        default = hypothesis_settings.default
        assert default is not None, "Hypothesis has no profile"

        @hypothesis_settings(
            default,
            max_examples=default.max_examples if examples is None else examples,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=drawn)
        def holds(case: Case) -> None:
            self._try(case)

        try:
            holds()
        except (PolicyViolation, Flaky, Enough):
            assert self._best is not None, "a failure that nobody saw"
        return self._best

    def _try(self, case: Case) -> None:
        best = self._best
        if best is not None:
            self._attempts += 1
            if self._attempts > self._max_shrinks:
                raise Enough
        violation, records = examine(case, self._make, self._claims, self._beyond)
        if violation is None or (best is not None and violation.rule != best.violation.rule):
            return
        if best is None or case.size <= best.case.size:
            self._best = _Failure(case, violation, records)
        raise violation


def examine(
    case: Case,
    make: PolicyFactory,
    claims: Sequence[Claim] = (),
    beyond: Collection[Beyond] = (),
) -> tuple[PolicyViolation | None, list[IterationRecord]]:
    """What one case says: the rule broken, if any, and the records of the run that shows it."""
    trace, chosen = case.trace, case.settings
    first = run_watched(make, trace, chosen, claims=claims, beyond=beyond)
    if first.violation is not None:
        return first.violation, first.records
    again = run_watched(make, trace, chosen, strict=False)
    violation = _differs("determinism", "two runs of the same trace", first, again)
    # In closed loop a request with several follow-ups takes users from those after it in line, of
    # whom the twin has more: it would be another load.
    if violation is None and (chosen.concurrency is None or trace.parent is None):
        renamed = run_renamed(make, trace, chosen)
        violation = _differs("renaming", "with other request ids in the same order", first, renamed)
    if violation is None:
        other = with_other_lengths(trace, case.others, first.rejected)
        twin = run_watched(make, other, chosen, strict=False)
        lengths = f"{trace.output_tokens.tolist()} and {other.output_tokens.tolist()}"
        violation = _knows_lengths(f"true lengths {lengths}", first, twin)
    return violation, first.records


def _differs(rule: str, what: str, first: Ran, second: Ran) -> PolicyViolation | None:
    for one, other in zip(first.records, second.records, strict=False):
        if one.decision() != other.decision():
            return _parted(rule, what, one, other)
    if len(first.records) != len(second.records):
        counts = f"{len(first.records)} and {len(second.records)} iterations"
        told = "" if second.violation is None else f"; {second.violation}"
        return PolicyViolation(rule, f"{what}: {counts}{told}")
    return None


def _knows_lengths(what: str, first: Ran, twin: Ran) -> PolicyViolation | None:
    """A difference before the first end that tells the two apart."""
    rule = "true length"
    for one, other in zip(first.records, twin.records, strict=False):
        if one.decision() != other.decision():
            return _parted(rule, what, one, other)
        if one.visible != other.visible:
            return PolicyViolation(
                rule, f"{what}: iteration {one.iteration}: a request shows its true length"
            )
        if one.finished != other.finished:
            return None
    if len(first.records) != len(twin.records):
        return _differs(rule, what, first, twin)
    return None


def _parted(rule: str, what: str, one: IterationRecord, other: IterationRecord) -> PolicyViolation:
    return PolicyViolation(
        rule,
        f"{what}: iteration {one.iteration} is decided in two ways\n"
        f"  {one.decision()}\n  {other.decision()}",
    )


def _report(failure: _Failure, folder: Path | str | None) -> NoReturn:
    target = Path(tempfile.mkdtemp(prefix="schedsim-") if folder is None else folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / "counterexample.jsonl"
    trace = failure.case.trace
    write_trace(trace, path)
    raise PolicyViolation(
        failure.violation.rule,
        failure.violation.problem,
        trace_path=path,
        timeline=draw_timeline(trace, failure.records),
        command=command_of(failure.case.settings, path),
    ) from None


def command_of(chosen: RunSettings, path: Path) -> str:
    """The `schedsim run` command of these settings on the trace at `path`."""
    words = ["schedsim", "run", str(path), "--check"]
    plain = make_settings()
    for name, value in chosen:
        if value != getattr(plain, name) or name == "policy":
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _factory(policy: Any) -> PolicyFactory:
    if isinstance(policy, str):
        return lambda: make_policy(policy)
    if not callable(policy):
        kind = type(policy).__name__
        raise ConfigError(
            f"check_policy is given a {kind} that is made already; every run needs a new one: give "
            f"the class, or a function that makes one, as lambda: {kind}(...)"
        )
    make: PolicyFactory = policy
    return make


def _spec_of(policy: Policy) -> str:
    """A spec that `--policy` takes, as far as a policy object has one."""
    kind = type(policy)
    place = POLICIES.get(policy.name)
    name = policy.name if place is kind else f"{inspect.getsourcefile(kind)}:{kind.__qualname__}"
    declared: Any = policy  # whether it is a dataclass is not in its type
    parameters = [f for f in fields(declared) if f.init] if is_dataclass(declared) else []
    return ",".join([name, *(f"{f.name}={getattr(policy, f.name)}" for f in parameters)])
