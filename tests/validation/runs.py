"""Runs to validate: simulations that pretend to be measured, under memory pressure."""

from pathlib import Path
from typing import Any

from schedsim.config import RunSettings, make_settings
from schedsim.costs.fitted_file import FittedFile, Part, Parts, Term
from schedsim.experiments.iterations import KINDS
from schedsim.experiments.runs import RunOptions, run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.experiments.validation.cells import make_cells
from schedsim.experiments.validation.metrics import Margins
from schedsim.experiments.validation.validating import Validation, validate
from schedsim.results.stored_run import StoredRun, load_run
from schedsim.traces import Trace
from schedsim.traces.generators.presets import generate

LINEAR = "linear:vidur-closed-form"
ENGINE: dict[str, Any] = {"model": "tiny", "blocks": 30, "max_model_len": 300, "max_seqs": 16}


def small_trace(requests: int = 60, rate: float = 80.0, seed: int = 3) -> Trace:
    """Short ShareGPT lengths."""
    trace = generate("sharegpt", requests, seed=seed, rate=rate)
    settings = make_settings(token_scale=0.1)
    return prepare_trace(trace, settings)


def settings(**given: Any) -> RunSettings:
    """Those of a small engine."""
    return make_settings(**{**ENGINE, "step_time": LINEAR, **given})


def stored(
    path: Path, trace: Trace, chosen: RunSettings, *, decisions: bool = False, trail: bool = True
) -> StoredRun:
    """The run of these settings, as its files tell it."""
    outcome = run_policy(prepare_trace(trace, chosen), chosen, RunOptions(path, decisions, trail))
    assert outcome.stopped is None, outcome.stopped
    return load_run(path)


def validated(
    folder: Path,
    trace: Trace,
    runs: list[StoredRun],
    step_time: str,
    margins: Margins | None = None,
    draws: int = 0,
) -> Validation:
    """What `validate` finds of the runs."""
    return validate(make_cells(runs, trace), step_time, folder, margins=margins, draws=draws)


def fitted(path: Path, *, slower: float = 1.0, scatter: float = 0.0) -> str:
    """The spec of a step time with host and gap, in a file; its iterations take up to `scatter`
    more or less."""
    file = FittedFile(
        parts=Parts(
            host=_part(0.0005, decode_requests=0.00002),
            device=_part(0.006 * slower, prefill_tokens=0.00005 * slower, decode_context=4e-8),
            gap=_part(0.0002),
        ),
        ranges={},
        steps=0,
        provenance={},
        residuals={},
        noise={kind: [1 - scatter, 1 + scatter] for kind in KINDS} if scatter else {},
        warnings=[],
    )
    path.write_text(file.model_dump_json())
    return f"fitted:{path}"


def _part(base: float, **slopes: float) -> Part:
    terms = {name: Term(knots=[0.0], slopes=[slope]) for name, slope in slopes.items()}
    return Part(base=base, terms=terms)
