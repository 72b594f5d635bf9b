"""Output limits: the max_tokens that a client would have sent with each request."""

from typing import NamedTuple

import numpy as np

from schedsim.errors import ConfigError
from schedsim.specs import Spec, parse_spec, unknown_name
from schedsim.traces.trace import TokenColumn, Trace

FORMS = ("column", "context", "const:TOKENS", "factor:K")


class Outputs(NamedTuple):
    """For each request the output limit that policies see, and the tokens it really emits."""

    limits: TokenColumn
    tokens: TokenColumn


def default_form(trace: Trace) -> str:
    """The form of limits where the user names none: the trace's column, or else the context."""
    return "context" if trace.max_output_tokens is None else "column"


def limit_outputs(trace: Trace, text: str, max_model_len: int) -> Outputs:
    """Output limits of a trace in the form `text`, within the context of `max_model_len`.

    `column` takes the trace's `max_output_tokens`; `context` whatever the prompt leaves of the
    context; `const:N` N; `factor:K` K times the true output, rounded up. Every limit is at least 1.
    An output longer than a limit that the client set ends there; one that the context does not
    hold is left whole, so that the scheduler rejects the request instead of a silent cut.

    Raises:
        ConfigError: an unknown form, a bad number, or `column` without the column.
    """
    room = max_model_len - trace.prompt_tokens.astype(np.int64)
    spec = parse_spec(text)
    if spec.parameters or (spec.value is not None and spec.name in ("column", "context")):
        raise ConfigError(f"--max-output {text!r}: write one of {', '.join(FORMS)}")
    if spec.name == "context":
        limits = room
    elif spec.name == "column":
        if trace.max_output_tokens is None:
            raise ConfigError("--max-output column: the trace has no max_output_tokens column")
        limits = trace.max_output_tokens.astype(np.int64)
    elif spec.name == "const":
        number = _number(spec, text)
        if number != int(number):
            raise ConfigError(f"--max-output {text!r}: {spec.value} must be a whole number")
        limits = np.full(len(trace), int(number), dtype=np.int64)
    elif spec.name == "factor":
        limits = np.ceil(_number(spec, text) * trace.output_tokens).astype(np.int64)
    else:
        raise unknown_name("form of --max-output", spec.name, FORMS)
    tokens = trace.output_tokens
    if spec.name != "context":
        tokens = np.minimum(tokens, np.maximum(limits, 1)).astype(np.int32)
    return Outputs(np.clip(limits, 1, np.maximum(room, 1)).astype(np.int32), tokens)


def _number(spec: Spec, text: str) -> float:
    try:
        number = float(spec.value or "")
    except ValueError:
        raise ConfigError(f"--max-output {text!r}: write {spec.name}:NUMBER") from None
    if not 0 < number < 2**31:
        raise ConfigError(f"--max-output {text!r}: {spec.value} must be above 0 and below 2^31")
    return number
