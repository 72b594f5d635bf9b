"""What a failed check hands over: a small trace, a timeline, and a command that runs it again."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from schedsim import read_trace, write_trace
from schedsim.config import RunSettings, make_settings
from schedsim.errors import ConfigError
from schedsim.policies import VLLM
from schedsim.testing import PolicyViolation, check_policy, settings, traces
from schedsim.testing.policy_check import Case, examine
from schedsim.traces.trace import Trace
from tests.cli.commands import schedsim
from tests.core.harness import Jobs
from tests.testing import mutant_policies as mutants

ANY = traces(
    shared_prefixes=True,
    follow_ups=True,
    tenants=3,
    priorities=True,
    slos=True,
    predictions=True,
)


def test_the_command_runs_the_counterexample_again(tmp_path: Path) -> None:
    with pytest.raises(PolicyViolation) as caught:
        check_policy(mutants.NeverAdmitsATenant, folder=tmp_path)
    violation = caught.value
    assert violation.trace_path == tmp_path / "counterexample.jsonl"
    assert len(read_trace(violation.trace_path)) <= 2
    assert violation.timeline in str(violation)
    ended = schedsim(*shlex.split(violation.command)[1:])
    assert ended.exit_code == 2
    assert violation.problem.splitlines()[0] in ended.stderr


def test_a_small_counterexample_is_found() -> None:
    with pytest.raises(PolicyViolation) as caught:
        check_policy(mutants.OverSeats, max_shrinks=80)
    assert caught.value.trace_path is not None
    assert len(read_trace(caught.value.trace_path)) <= 5


@given(trace=ANY)
def test_a_drawn_trace_reads_back_as_it_was_written(
    trace: Trace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trace") / "drawn.jsonl"
    write_trace(trace, path)
    back = read_trace(path).columns()
    assert list(back) == list(trace.columns())
    for name, column in trace.columns().items():
        np.testing.assert_array_equal(back[name], column)


@given(trace=ANY)
def test_limits_are_never_below_the_true_length(trace: Trace) -> None:
    assert trace.max_output_tokens is not None
    assert (trace.max_output_tokens >= trace.output_tokens).all()


def test_the_plainest_trace_is_one_short_request() -> None:
    trace = find(ANY, lambda trace: True)
    assert list(trace.columns()) == [
        "arrival",
        "prompt_tokens",
        "output_tokens",
        "max_output_tokens",
    ]
    assert [trace.prompt_tokens.tolist(), trace.output_tokens.tolist()] == [[1], [1]]


@given(data=st.data(), trace=ANY)
def test_drawn_settings_have_room_for_most_of_the_trace(data: st.DataObject, trace: Trace) -> None:
    chosen = data.draw(settings(trace))
    assert isinstance(chosen, RunSettings)
    assert chosen.blocks is not None
    assert chosen.blocks >= 1


def test_users_whose_requests_have_several_follow_ups_are_no_violation() -> None:
    """Found in the `deep` profile: the twin with other ids was a load of another order."""
    parents = [-1, -1, -1, 2, -1, -1, 2, 2]
    trace = Jobs([2] * 8, [3] * 8, parents=parents).trace()
    trace = replace(trace, max_output_tokens=trace.output_tokens)
    sizes = {"blocks": 40, "block_size": 4, "max_model_len": 20, "max_seqs": 3, "token_budget": 16}
    chosen = make_settings(concurrency=3, decision_lag=0, **sizes)
    violation, records = examine(Case(trace, chosen, (0,) * 8), VLLM)
    assert violation is None
    assert len(records) > 3


def test_what_is_no_policy_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a VLLM that is made already.* lambda: VLLM\("):
        check_policy(VLLM(), examples=1)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no folder"):
        check_policy("vllm", examples=1, folder=tmp_path / "file")


def test_a_rule_is_named_once() -> None:
    with pytest.raises(PolicyViolation, match=r"^deadlock: policy 'NeverGoesOn'"):
        check_policy(mutants.NeverGoesOn, max_shrinks=5)
