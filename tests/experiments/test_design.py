"""Designs keep within the engine's limits and cover what they are to; an engine runs them."""

from dataclasses import fields, replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.config import RunSettings
from schedsim.costs.features import KINDS
from schedsim.costs.fitted import make_fitted
from schedsim.experiments import designed_run
from schedsim.experiments.calibration import Calibration, calibrate
from schedsim.experiments.design import Design, Limits, Stage
from schedsim.experiments.design_file import is_counted, read_design
from schedsim.experiments.design_stages import COOLED, COOLING, make_design
from schedsim.experiments.iterations import iterations_of
from schedsim.experiments.setup import Sizes, prepare_run, prepare_trace
from schedsim.results.columns import StepColumns
from schedsim.scheduler.batch import BatchShape
from schedsim.traces.sample import sample_trace
from tests.experiments.hardware import Hardware, engine, run_design

FEW = max(1, hypothesis.settings.default.max_examples // 4)


def in_blocks(prompt: int, output: int) -> int:
    return -(-(prompt + output) // 16) * 16


def limits(**changes: object) -> Limits:
    chosen = {
        "max_seqs": 32,
        "token_budget": 2048,
        "max_model_len": 4096,
        "slots": 100_000,
        "held": in_blocks,
        "host_slots": 8000,
    }
    return Limits(**{**chosen, **changes})  # type: ignore[arg-type]


engines = st.builds(
    limits,
    max_seqs=st.integers(1, 70),
    token_budget=st.integers(16, 16384),
    max_model_len=st.integers(64, 6000),
    slots=st.integers(20_000, 600_000),
    host_slots=st.sampled_from([0, 5000]),
    outgrows=st.booleans(),
    compacts=st.booleans(),
)


class Engine:
    """Keeps books of a script: who runs, what is computed and emitted, what the cache holds."""

    def __init__(self, design: Design, limits: Limits) -> None:
        self.design = design
        self.limits = limits
        self.computed: dict[int, int] = {}
        self.emitted: dict[int, int] = {}
        self.gone: set[int] = set()
        self.mixed: set[tuple[int, int]] = set()
        """(chunks, tokens in all) of batches with decodes."""

    def run(self, stage: Stage) -> None:
        self.gone |= set(self.computed)
        self.computed.clear()
        for batch in stage:
            for turn in batch:
                for request in turn.leave:
                    del self.computed[request]
                    self.gone.add(request)
                decodes = [r for r in self.computed if self._decodes(r)]
                if turn.swap_out is not None:
                    decodes.remove(turn.swap_out)
                if turn.decodes:
                    assert decodes, "an iteration of decodes runs nobody"
                    for request in decodes:
                        self._emit(request)
                        self.computed[request] += 1
                tokens = len(decodes) if turn.decodes else 0
                for request, chunk in turn.chunks:
                    tokens += self._chunk(request, chunk)
                assert tokens <= max(self.limits.token_budget, len(decodes))
                assert tokens > 0
                if turn.chunks:
                    if turn.decodes:
                        self.mixed.add((len(turn.chunks), tokens))
                    assert len(self.computed) <= self.limits.max_seqs
                    assert sum(map(self._held, self.computed)) <= self.limits.slots

    def _decodes(self, request: int) -> bool:
        return self.computed[request] >= self.design.prompts[request]

    def _chunk(self, request: int, tokens: int) -> int:
        assert request not in self.gone, "a request comes back"
        assert tokens > 0
        before = self.computed.get(request, 0)
        self.computed[request] = before + tokens
        assert self.computed[request] <= self.design.prompts[request]
        if self._decodes(request):
            self._emit(request)
        return tokens

    def _emit(self, request: int) -> None:
        self.emitted[request] = self.emitted.get(request, 0) + 1
        assert self.emitted[request] < self.design.outputs[request], "a request ends"

    def _held(self, request: int) -> int:
        return self.limits.held(self.design.prompts[request], self.design.outputs[request])


@hypothesis.settings(max_examples=FEW)
@given(engines, st.integers(0, 99))
def test_a_design_keeps_within_its_limits(limits: Limits, seed: int) -> None:
    design = make_design(limits, 1, np.random.default_rng(seed))
    books = Engine(design, limits)
    books.run(design.warm_up)
    for stages in design.passes:
        for stage in stages:
            books.run(stage)
    lengths = np.array(design.prompts) + np.array(design.outputs)
    assert lengths.max() <= limits.max_model_len
    assert min(design.prompts) >= 1


def test_before_some_batches_the_device_has_next_to_nothing_to_compute() -> None:
    design = make_design(limits(), 1, np.random.default_rng(3))
    batches = [batch for stage in design.passes[0] for batch in stage]
    cooled = 0
    for batch in batches:
        single = [len(turn.chunks) == 1 and turn.chunks[0][1] == 1 for turn in batch]
        if sum(single) < COOLING:
            continue
        cooled += 1
        begin = single.index(True)
        (request,) = {turn.chunks[0][0] for turn in batch[begin : begin + COOLING]}
        assert not any(turn.counts for turn in batch[begin : begin + COOLING])
        assert request in batch[begin + COOLING].leave, "it is not there when it counts"
    assert 0.5 * COOLED < cooled / len(batches) < 1.5 * COOLED


def test_passes_are_the_same_design_in_another_order() -> None:
    design = make_design(limits(), 3, np.random.default_rng(1))
    again = make_design(limits(), 3, np.random.default_rng(1))
    assert (design.passes, design.prompts) == (again.passes, again.prompts)
    sizes = [sorted(len(stage) for stage in stages) for stages in design.passes]
    assert abs(sum(sizes[0]) - sum(sizes[1])) < 0.1 * design.planned
    assert design.passes[0] != design.passes[1] != design.passes[2]


def test_batches_are_filled_as_policies_with_a_token_budget_fill_them() -> None:
    """Chunks and the decodes beside them are exactly as many tokens as such a budget has."""
    chosen = limits(max_seqs=64, token_budget=16384)
    design = make_design(chosen, 1, np.random.default_rng(0))
    books = Engine(design, chosen)
    for stage in design.passes[0]:
        books.run(stage)
    assert {(1, 512), (1, 2048)} <= books.mixed


def test_many_chunks_come_together_in_batches_for_graphs_and_in_larger_ones() -> None:
    chosen = limits(max_seqs=100, token_budget=16384)
    design = make_design(chosen, 1, np.random.default_rng(1))
    turns = [turn for stage in design.passes[0] for batch in stage for turn in batch]
    sizes = {(len(turn.chunks), sum(tokens for _, tokens in turn.chunks)) for turn in turns}
    assert {(16, 256), (20, 1020), (40, 2560), (80, 2560), (80, 4080), (80, 16320)} <= sizes


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(
    ("memory", "moves"),
    [
        ("paged,host_blocks=600", False),
        ("paged,prefix_caching=true", False),
        ("contiguous", False),
        ("contiguous,compaction=true,host_blocks=600", True),
        ("contiguous,reserve=predicted", True),
        ("buddy", True),
        ("buddy,reserve=exact", True),
        ("vattention,tokens_per_page=32", False),
    ],
)
def test_an_engine_runs_the_whole_design(
    memory: str, moves: bool, lag: int, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    blocks = 500 if "compaction" in memory else 4000
    settings = engine(
        memory=memory, decision_lag=lag, max_seqs=20, max_model_len=1024, blocks=blocks
    )
    run = run_design(folder, Hardware(), settings, check_every=7)
    design = read_design(folder)
    assert design is not None
    assert (design.passes, design.skipped) == (1, 0)
    assert design.batches == design.planned
    measured = iterations_of(run)
    measured = measured.take(is_counted(folder, measured.row))
    assert len(measured) + len(design.left_out) == run.steps.num_rows - 1, "the last only refuses"
    terms = measured.terms
    assert {1, 2, 4, 8, 12, 16, 20} <= set(terms["decode_requests"].tolist())
    assert terms["prefill_tokens"].max() == 2048
    assert terms["prefill_context"].max() > 600
    assert terms["longest_context"].max() > 700
    assert set(measured.kind.tolist()) == {KINDS.index(k) for k in ("prefill", "decode", "mixed")}
    assert (terms["swapped_blocks"].max() > 0) == ("host_blocks" in memory)
    assert (terms["copied_blocks"].max() > 0) == moves


def test_the_time_limit_ends_it_between_two_batches(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    run = run_design(folder, Hardware(), engine(), passes=5, limit=2.0)
    design = read_design(folder)
    assert design is not None
    assert design.passes == 0
    assert 0 < design.batches < design.planned
    end = run.steps.column("end").combine_chunks().flatten().to_numpy()[-1]
    assert 2.0 < end < 4.0


def test_what_finds_no_room_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache with less room than the design was told of."""
    told = designed_run.limits_of

    def boast(settings: RunSettings, sizes: Sizes) -> Limits:
        honest = told(settings, sizes)
        return replace(honest, slots=3 * honest.slots)

    monkeypatch.setattr(designed_run, "limits_of", boast)
    folder = tmp_path / "run"
    run_design(folder, Hardware(), engine(), check_every=7)
    design = read_design(folder)
    assert design is not None
    assert design.skipped > 0
    assert design.batches + design.skipped == design.planned


@pytest.mark.parametrize("policy", ["vllm", "sarathi,chunk_size=300", "vllm-v0"])
def test_a_known_hardware_is_found_through_its_noise(policy: str, calibration: Calibration) -> None:
    """A design at 1 % scatter and with pauses tells the exact times of a trace's batches, each."""
    cost = make_fitted(calibration.file, "hardware.json")
    settings = engine(policy=policy, limit=40, rate_scale=3, seed=5)
    trace = prepare_trace(sample_trace(), settings)
    backend = prepare_run(trace, settings, cost=Hardware()).backend
    backend.run()
    steps = StepColumns.from_log(backend.record().steps)
    names = [field.name for field in fields(BatchShape) if field.name != "decode_context"]
    columns = {name: getattr(steps, name).tolist() for name in names}
    columns["decode_context"] = (steps.context_tokens + steps.decode_requests).tolist()
    hardware, errors = Hardware(), []
    for row in zip(*columns.values(), strict=True):
        shape = BatchShape(**dict(zip(columns, row, strict=True)))
        errors.append(cost.seconds(shape) / hardware.seconds(shape) - 1)
    assert len(errors) > 500
    assert np.median(np.abs(errors)) < 0.01
    assert np.quantile(np.abs(errors), 0.9) < 0.015
    assert np.abs(errors).max() < 0.04
    assert abs(np.mean(errors)) < 0.008


def test_held_out_sizes_of_a_design_are_off_by_its_noise(calibration: Calibration) -> None:
    errors = calibration.file.residuals
    assert errors["cross_validated"]["median"] == pytest.approx(0.0067, abs=0.003)
    assert errors["cross_validated"]["p90"] < 0.025
    for name, figures in errors["by_region"].items():
        if figures["iterations"] >= 20:
            assert figures["held_out"]["median"] < 0.02, name
    (low, *_, high) = calibration.file.noise["decode"]
    assert 0.93 < low < 0.99
    assert high > 1.3, "a pause of 4 ms"


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    pytest.importorskip("scipy")
    folder = tmp_path_factory.mktemp("hardware") / "run"
    return calibrate([run_design(folder, Hardware(0.01, seed=3), engine(seed=2), passes=2)])
