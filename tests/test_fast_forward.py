"""Iterations run ahead: the same decisions, blocks and results as one by one, for every policy."""

import json
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.config import RunSettings, make_settings
from schedsim.experiments.setup import prepare_run, prepare_trace
from schedsim.memory import MANAGERS
from schedsim.policies import VLLM, Policy, Priority
from schedsim.policies.base import trusted_steady
from schedsim.policies.loading import make_policy
from schedsim.request import Request
from schedsim.results import Result, build_result
from schedsim.scheduler import Batch, Step
from schedsim.testing import strategies
from schedsim.traces.sample import sample_trace
from schedsim.traces.trace import Trace
from schedsim.traces.transforms import limit
from tests.cli.commands import schedsim
from tests.testing.test_shipped import MEMORIES, POLICY_SPECS

MORE_SPECS = (
    "vllm,policy=priority,watermark=0.1",
    "vllm,prefill_interval=3",
    "vllm,whole_sequence=false,long_prefill_threshold=5",
    "vllm-v0,policy=priority",
    "vllm-v0,delay_factor=0.5",
    "vllm-v0,chunked=true",
    "orca,reserve=max",
    "priority,displaces=true,aging=0.5",
    "priority,displaces=true,preemption=swap",
    "tgi,chunking=true",
    "sglang,order=lpm",
    "sjf,kappa=0.5",
)
SPECS = (*(spec for spec, _ in POLICY_SPECS), *MORE_SPECS)
OWN_PAGES = "vattention,tokens_per_page=4"
SMALL_MEMORIES = {spec.partition(",host_blocks")[0] for spec in MEMORIES if "=max" not in spec}
ALL_MEMORIES = sorted(SMALL_MEMORIES - {"vattention"} | {OWN_PAGES})
EXAMPLES = max(hypothesis.settings.default.max_examples // 3, 1)

Tables = dict[int, list[int]]


class Ran:
    """A run, with what every request held after each iteration that was decided by itself."""

    def __init__(self, trace: Trace, settings: RunSettings, fast_forward: bool) -> None:
        replayed = prepare_trace(trace, settings)
        backend = prepare_run(replayed, settings, fast_forward=fast_forward).backend
        self.held: dict[int, tuple[Tables, int, list[int]]] = {}
        loop, scheduler = backend._loop, backend._scheduler
        finish = loop.finish

        def watched(batch: Batch, start: float, end: float) -> None:
            finish(batch, start, end)
            kv_cache = scheduler.kv_cache
            tables = {r.id: list(kv_cache.block_table(r)) for r in scheduler.running}
            waiting = [request.id for request in scheduler.waiting]
            self.held[batch.iteration] = tables, kv_cache.free_blocks, waiting

        loop.finish = watched  # type: ignore[method-assign]
        backend.run()
        scheduler.check()
        self.result: Result = build_result(backend.record())

    @property
    def skipped(self) -> int:
        """Iterations that were not decided by themselves."""
        return self.result.steps_table.num_rows - len(self.held)


def assert_same(fast: Ran, plain: Ran) -> None:
    assert plain.skipped == 0
    for iteration, held in fast.held.items():
        assert held == plain.held[iteration], f"iteration {iteration}"
    assert fast.result.steps_table.equals(plain.result.steps_table)
    assert fast.result.requests_table.equals(plain.result.requests_table)
    assert json.dumps(fast.result.summary) == json.dumps(plain.result.summary)


@pytest.mark.parametrize("spec", SPECS)
@hypothesis.settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_every_policy_decides_the_same(spec: str, data: st.DataObject) -> None:
    trace = data.draw(
        strategies.traces(
            max_output=60,
            shared_prefixes=True,
            follow_ups=True,
            tenants=2,
            priorities=True,
            slos=True,
        )
    )
    settings = data.draw(
        strategies.settings(trace, policy=spec, memories=ALL_MEMORIES, predictors=("oracle",))
    )
    assert_same(Ran(trace, settings, True), Ran(trace, settings, False))


@pytest.mark.parametrize("memory", sorted(MANAGERS))
@pytest.mark.parametrize("policy", ["vllm", "static", "sjf"])
def test_most_decode_iterations_are_run_ahead(policy: str, memory: str) -> None:
    trace = limit(sample_trace(), 40)
    settings = make_settings(
        blocks=3000, max_seqs=8, policy=policy, memory=memory, predictor="oracle"
    )
    fast, plain = Ran(trace, settings, True), Ran(trace, settings, False)
    assert_same(fast, plain)
    assert fast.skipped > 0.5 * len(plain.held)


class Stops(VLLM):
    """Decides otherwise than its base, by the clock, and does not say how far it is steady."""

    def schedule(self, step: Step) -> None:
        if step.iteration % 5:
            VLLM.schedule(self, step)
        else:
            step.run_decodes()


class Ages(Priority):
    """Ranks otherwise than its base, by a hook that only this one has."""

    def rank(self, request: Request) -> float:
        return -float(request.num_generated_tokens)


def test_an_inherited_promise_does_not_bind_another_decision() -> None:
    assert trusted_steady(VLLM())
    assert trusted_steady(Priority())
    assert trusted_steady(make_policy("vllm@0.11"))
    assert not trusted_steady(Stops())
    assert not trusted_steady(Ages())
    assert not trusted_steady(Policy())
    patched = Policy()
    patched.steady = lambda step: 2  # type: ignore[method-assign]
    assert trusted_steady(patched)
    patched.chunk = lambda request, tokens, step: 1  # type: ignore[method-assign]
    assert not trusted_steady(patched)


def test_the_files_are_the_same(tmp_path: Path) -> None:
    for name, flags in (("fast", ()), ("plain", ("--no-fast-forward",))):
        done = schedsim("run", "--limit", 200, "--out", tmp_path / name, *flags)
        assert done.exit_code == 0, done.stderr
    for file in ("requests.parquet", "steps.parquet", "summary.json"):
        assert (tmp_path / "fast" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
