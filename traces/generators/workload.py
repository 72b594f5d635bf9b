"""`Workload`: arrivals, lengths, tenants and sessions put together, and the trace they make."""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError
from schedsim.traces.generators.arrivals import ArrivalProcess, Burst, OnOff, Poisson
from schedsim.traces.generators.lengths import LengthLaw, check_rho, sample_pair
from schedsim.traces.generators.sessions import (
    SessionModel,
    Turns,
    lay_out_turns,
    nominal_arrivals,
    shared_blocks,
)
from schedsim.traces.generators.tenants import ClientMix, TenantArrivals
from schedsim.traces.trace import Trace, TraceSource

MOST_REQUESTS = 100_000_000
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Workload:
    """What `generate` draws from; every part is a frozen value.

    `rho` is the rank correlation of prompt and output lengths. With `tenants` the arrivals are the
    clients' own, at the mean rate of `arrivals`. With `sessions` the arrivals are those of session
    starts, and `prompt` is the law of what each turn adds to its prompt.

    Raises:
        ConfigError: rho outside [-1, 1], or tenants and arrivals without a mean rate.
    """

    arrivals: ArrivalProcess
    prompt: LengthLaw
    output: LengthLaw
    rho: float = 0.0
    tenants: ClientMix | None = None
    sessions: SessionModel | None = None

    def __post_init__(self) -> None:
        check_rho(self.rho)
        if self.tenants is not None:
            mean_rate(self.arrivals)
        if self.sessions is not None and self.sessions.system == "tenant" and self.tenants is None:
            raise ConfigError("sessions with system=tenant need tenants; add --tenants N")

    def generate(self, requests: int, seed: int | np.random.Generator, name: str = "") -> Trace:
        """A trace of exactly `requests` requests.

        Arrivals, lengths and sessions have streams of their own, spawned from the seed: a change
        of one leaves the draws of the others as they were.

        Raises:
            ConfigError: fewer than 1 or more than 100,000,000 requests, or a negative seed.
        """
        if not 1 <= requests <= MOST_REQUESTS:
            raise ConfigError(f"requests must be from 1 to {MOST_REQUESTS:,}, got {requests}")
        arrival_rng, length_rng, session_rng = _generator(seed).spawn(3)
        prompt, output = sample_pair(self.prompt, self.output, self.rho, requests, length_rng)
        seeded = f" with seed {seed}" if isinstance(seed, int) else ""
        origin = f"generated{seeded}: {self}"
        source = TraceSource(name or "generated", "generated", rows_read=requests, origin=origin)
        if self.sessions is None:
            came = self._arrivals(requests, arrival_rng)
            return Trace(
                arrival=came.times,
                prompt_tokens=prompt,
                output_tokens=output,
                source=source,
                tenant=came.tenant if self.tenants else None,
                tenant_names=self._tenant_names(),
            )
        turns = lay_out_turns(self.sessions, prompt, output, session_rng)
        starts = self._arrivals(int(turns.session[-1]) + 1, arrival_rng)
        return self._session_trace(self.sessions, turns, starts, source)

    def _arrivals(self, n: int, rng: np.random.Generator) -> TenantArrivals:
        if self.tenants is None:
            return TenantArrivals(self.arrivals.times(n, rng), np.zeros(n, dtype=np.int64))
        return self.tenants.arrivals(n, mean_rate(self.arrivals), rng)

    def _tenant_names(self) -> tuple[str, ...]:
        count = self.tenants.clients if self.tenants else 0
        return tuple(f"client-{client}" for client in range(count))

    def _session_trace(
        self, model: SessionModel, turns: Turns, starts: TenantArrivals, source: TraceSource
    ) -> Trace:
        """The turns in the order of their nominal arrivals, each after its parent."""
        tenant = starts.tenant[turns.session]
        nominal = nominal_arrivals(turns, starts.times)
        order = np.lexsort((turns.turn, turns.session, nominal))
        row_of = np.empty_like(order)
        row_of[order] = np.arange(len(order))
        before = np.where(turns.turn > 0, np.concatenate(([-1], row_of[:-1])), -1)
        in_order = turns.take(order)
        per_tenant = model.system == "tenant"
        return Trace(
            arrival=nominal[order],
            prompt_tokens=in_order.prompt_tokens.astype(np.int32),
            output_tokens=in_order.output_tokens.astype(np.int32),
            source=source,
            session=in_order.session,
            parent=before[order].astype(np.int64),
            think_s=in_order.think_s,
            tenant=tenant[order] if self.tenants else None,
            tenant_names=self._tenant_names(),
            blocks=shared_blocks(
                model, in_order, tenant[order] if per_tenant else np.zeros_like(order)
            ),
        )


def _generator(seed: int | np.random.Generator) -> np.random.Generator:
    if isinstance(seed, np.random.Generator):
        return seed
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, got {seed}")
    return np.random.default_rng(seed)


def mean_rate(process: ArrivalProcess) -> float:
    """The long-run rate of a process in requests per second.

    Raises:
        ConfigError: the process has none, as a burst.
    """
    if isinstance(process, OnOff) and process.rate is None:
        return process.own_rate()
    rate: float | None = getattr(process, "rate", None)
    if rate is None:
        raise ConfigError(f"{type(process).__name__.lower()} arrivals have no rate; give --rate R")
    return rate


def with_rate(process: ArrivalProcess, rate: float) -> ArrivalProcess:
    """The same process at another mean rate; a burst becomes Poisson.

    Raises:
        ConfigError: the rate is not above 0.
    """
    if isinstance(process, Burst):
        return Poisson(rate)
    mean_rate(process)
    changed: ArrivalProcess = replace(cast(Any, process), rate=rate)
    return changed
