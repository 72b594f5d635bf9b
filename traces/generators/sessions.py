"""Multi-turn sessions: each prompt is the previous prompt, its answer, and something new.

Turns are a closed loop (`parent`, `think_s`); their `arrival` is nominal: when they would have come
had each answer taken the service time of `nominal_service`. Prefixes are really shared: a session's
blocks have the same ids in all its turns, and the system prompt's in all sessions that have it.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError
from schedsim.specs import Spec, build_from_spec, parse_spec, unknown_name
from schedsim.traces.generators.arrivals import check_positive
from schedsim.traces.generators.lengths import Tokens
from schedsim.traces.trace import PromptBlocks

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LARGEST_CONTEXT = 1 << 24

# Recorded service times of coding-agent calls, least squares (R² .86).
SERVICE_BASE_S = 2.63
SERVICE_OUTPUT_TOKEN_S = 0.0150
SERVICE_NEW_TOKEN_S = 3.2e-5


@dataclass(frozen=True)
class SessionModel:
    """How sessions go on.

    The number of turns is geometric with mean `turns`. Think times are a mixture of two lognormals
    (weight `think_weight` for the first) capped at `think_cap` seconds; the defaults are fitted to
    coding agents. Every prompt begins with a system prompt of `system_tokens`, one for `all` or one
    per `tenant`. A session ends before a turn whose prompt and output would pass `max_context`.

    Raises:
        ConfigError: a value out of range.
    """

    turns: float = 5.0
    system_tokens: int = 256
    system: Literal["all", "tenant"] = "all"
    max_context: int = 131_072
    block_size: int = 16
    think_weight: float = 0.62
    think_mu1: float = 1.99
    think_sigma1: float = 0.61
    think_mu2: float = 4.32
    think_sigma2: float = 1.68
    think_cap: float = 600.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.turns < float("inf"):
            raise ConfigError(f"sessions need turns >= 1, got {self.turns}")
        if self.system_tokens < 0 or self.block_size < 1:
            raise ConfigError(
                f"sessions need system_tokens >= 0 and block_size >= 1, got {self.system_tokens} "
                f"and {self.block_size}"
            )
        if not self.system_tokens + 2 <= self.max_context <= LARGEST_CONTEXT:
            raise ConfigError(
                f"sessions need max_context above system_tokens + 1 = {self.system_tokens + 1} and "
                f"up to {LARGEST_CONTEXT}, got {self.max_context}"
            )
        if not 0.0 <= self.think_weight <= 1.0:
            raise ConfigError(f"sessions need 0 <= think_weight <= 1, got {self.think_weight}")
        check_positive(
            "sessions",
            think_sigma1=self.think_sigma1,
            think_sigma2=self.think_sigma2,
            think_cap=self.think_cap,
        )
        if max(abs(self.think_mu1), abs(self.think_mu2), self.think_sigma1, self.think_sigma2) > 20:
            raise ConfigError("sessions need think_mu and think_sigma up to 20: logs of seconds")

    def think_times(self, n: int, rng: np.random.Generator) -> Floats:
        """n times in seconds between an answer and the next turn."""
        first = rng.random(n) < self.think_weight
        logs = np.where(first, self.think_mu1, self.think_mu2)
        logs = logs + np.where(first, self.think_sigma1, self.think_sigma2) * rng.standard_normal(n)
        return np.minimum(np.exp(logs), self.think_cap)


def parse_sessions(text: str) -> SessionModel:
    """A model from `5` (mean turns) or `turns=5,system_tokens=1000,system=tenant`.

    Raises:
        ConfigError: an unknown parameter or a value out of range.
    """
    if "=" in text and ":" not in text:
        spec = parse_spec(f"geometric:{text}")
    elif "=" not in text and ":" not in text and text[:1].isdigit():
        spec = Spec("geometric", {}, text)
    else:
        spec = parse_spec(text)
    if spec.name != "geometric":
        raise unknown_name("session model", spec.name, ["geometric"])
    return build_from_spec("session model", SessionModel, spec)


class Turns(NamedTuple):
    """The turns of all sessions, session after session; `turn` counts from 0."""

    session: Ints
    turn: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    think_s: Floats

    def take(self, rows: Ints) -> "Turns":
        """These rows in this order."""
        return Turns(
            self.session[rows],
            self.turn[rows],
            self.prompt_tokens[rows],
            self.output_tokens[rows],
            self.think_s[rows],
        )


def lay_out_turns(
    model: SessionModel, new_tokens: Tokens, output_tokens: Tokens, rng: np.random.Generator
) -> Turns:
    """Deal drawn lengths to sessions, one turn a pair, until they are used up.

    The last session is cut where the lengths end. A turn that would pass the context starts the
    next session instead; a first turn that would is clipped to it, its output first.
    """
    n = len(new_tokens)
    ends_here = (rng.random(n) < 1.0 / model.turns).tolist()
    think = model.think_times(n, rng)
    prompts = np.empty(n, dtype=np.int64)
    outputs = output_tokens.astype(np.int64)
    sessions = np.empty(n, dtype=np.int64)
    turns = np.empty(n, dtype=np.int64)
    session, turn, context = 0, 0, model.system_tokens
    for row, (new, output, ends) in enumerate(
        zip(new_tokens.tolist(), output_tokens.tolist(), ends_here, strict=True)
    ):
        if turn and context + new + output > model.max_context:
            session, turn, context = session + 1, 0, model.system_tokens
        prompt = min(context + new, model.max_context - 1)
        output = min(output, model.max_context - prompt)
        prompts[row], outputs[row], sessions[row], turns[row] = prompt, output, session, turn
        context, turn = prompt + output, turn + 1
        if ends:
            session, turn, context = session + 1, 0, model.system_tokens
    think[turns == 0] = 0.0
    return Turns(sessions, turns, prompts, outputs, think)


def nominal_service(turns: Turns) -> Floats:
    """Seconds each answer is taken to last where only nominal arrivals need it."""
    before = np.concatenate(([0], (turns.prompt_tokens + turns.output_tokens)[:-1]))
    new = turns.prompt_tokens - np.where(turns.turn > 0, before, 0)
    return SERVICE_BASE_S + SERVICE_OUTPUT_TOKEN_S * turns.output_tokens + SERVICE_NEW_TOKEN_S * new


def nominal_arrivals(turns: Turns, starts: Floats) -> Floats:
    """Arrival of each turn in seconds: its session's start, and the services and thinking since."""
    service = nominal_service(turns)
    delay = turns.think_s.copy()
    delay[1:] += np.where(turns.turn[1:] > 0, service[:-1], 0.0)
    since = np.cumsum(delay)
    first_rows = np.flatnonzero(turns.turn == 0)
    return np.asarray(starts[turns.session] + since - since[first_rows][turns.session])


def shared_blocks(model: SessionModel, turns: Turns, system_of: Ints) -> PromptBlocks:
    """Block ids of the turns' prompts, full blocks alone; `system_of` numbers the system prompts.

    Blocks within a system prompt have the ids of that prompt; a block that also holds a session's
    tokens, and all after it, have ids of the session.
    """
    size = model.block_size
    system_blocks = model.system_tokens // size
    lengths = turns.prompt_tokens // size
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    row = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(offsets[-1]) - offsets[row]
    # The last turn of a session is its longest, so that many ids are enough for it.
    longest = np.zeros(int(turns.session.max()) + 1, dtype=np.int64)
    np.maximum.at(longest, turns.session, lengths)
    owned = np.maximum(longest - system_blocks, 0)
    system_ids = (int(system_of.max(initial=-1)) + 1) * system_blocks
    bases = system_ids + np.concatenate(([0], np.cumsum(owned)[:-1]))
    of_session = bases[turns.session[row]] + position - system_blocks
    of_system = system_of[row] * system_blocks + position
    ids = np.where(position < system_blocks, of_system, of_session)
    return PromptBlocks(size, offsets.astype(np.int64), ids.astype(np.int64))
