"""A small ablation that runs in a second or two, for the tests of this folder."""

from dataclasses import replace
from typing import Any

from schedsim.config import make_settings
from schedsim.experiments.ablation.running import Prepared, prepare
from schedsim.experiments.ablation.setup import Setup

SMALL = Setup(
    engine=make_settings(blocks=120, max_seqs=16, max_model_len=480, token_scale=0.1),
    trace="generate:azure-conv,requests=24",
    repeats=2,
)


def prepared(setup: Setup = SMALL, **engine: Any) -> Prepared:
    """Ready to run; `engine` replaces settings of what all cells share."""
    return prepare(replace(setup, engine=setup.engine.model_copy(update=engine)))
