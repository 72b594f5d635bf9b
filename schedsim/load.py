"""`Load`: hands a trace's requests over at their times, in open or closed loop."""

from heapq import heapify, heappop, heappush

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError
from schedsim.output_limit import Outputs
from schedsim.request import Request
from schedsim.traces.trace import Trace


class Load:
    """The load generator that both backends share.

    Open loop: a request comes at its `arrival`. A request with a parent comes `think_s` after its
    parent ended (finished or was refused). With `concurrency` N the arrival times are ignored: N
    users are there from time 0 on, in trace order, each with a request or thinking about its next
    one; when a user has no more, the next request without a parent comes in. Requests that are due
    at the same time come in trace order.
    """

    def __init__(
        self,
        trace: Trace,
        outputs: Outputs,
        *,
        concurrency: int | None = None,
        ttft_slo: float | None = None,
        tpot_slo: float | None = None,
        delay: float = 0.0,
    ) -> None:
        """`outputs` are the output limits and the tokens that requests emit.

        `ttft_slo` and `tpot_slo` are the run's targets in seconds: those of every request for which
        the trace names none of its own. Every request is handed over `delay` seconds after its
        arrival, which stays what it was.

        Raises:
            ConfigError: `concurrency` is below 1.
        """
        if concurrency is not None and concurrency < 1:
            raise ConfigError(f"--concurrency {concurrency} must be at least 1")
        self._trace = trace
        self._ttft_slo = ttft_slo
        self._tpot_slo = tpot_slo
        self._prompts: list[int] = trace.prompt_tokens.tolist()
        self._limits: list[int] = outputs.limits.tolist()
        self._outputs: list[int] = outputs.tokens.tolist()
        self._children: dict[int, list[int]] = {}
        self._open: list[tuple[float, int]] = []
        self._cursor = 0
        self._delay = delay
        self._backlog: list[int] = []
        self._free_users = 0
        self._due: list[tuple[float, int]] = []
        self._enter(concurrency)

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def next_time(self) -> float | None:
        """When the next known request is due; None if none is until another one ends."""
        cursor = self._cursor
        if cursor < len(self._open):
            arrival = self._open[cursor][0]
            if self._due and self._due[0][0] < arrival:
                arrival = self._due[0][0]
            return arrival + self._delay
        return self._due[0][0] + self._delay if self._due else None

    @property
    def open_times(self) -> list[tuple[float, int]]:
        """(due, request) of those whose times nothing else decides, the earliest first."""
        return [(arrival + self._delay, index) for arrival, index in self._open]

    def take(self) -> tuple[Request, int]:
        """The next request and its true output length; only when `next_time` is not None."""
        cursor = self._cursor
        due = self._due
        if cursor < len(self._open) and (not due or self._open[cursor] < due[0]):
            arrival, index = self._open[cursor]
            self._cursor += 1
        else:
            arrival, index = heappop(due)
        return self._request(index, arrival), self._outputs[index]

    def ended(self, request: Request, time: float) -> None:
        """Tell that `request` finished or was refused at `time`: who waits for it is due next."""
        children = self._children.pop(request.id, ())
        think = self._trace.think_s
        for index in children:
            heappush(self._due, (time + (0.0 if think is None else float(think[index])), index))
        self._free_users += 1 - len(children)
        while self._backlog and self._free_users > 0:
            self._free_users -= 1
            heappush(self._due, (time, self._backlog.pop()))

    def _enter(self, concurrency: int | None) -> None:
        trace = self._trace
        roots = list(range(len(trace)))
        if trace.parent is not None:
            for index, parent in enumerate(trace.parent.tolist()):
                if parent >= 0:
                    self._children.setdefault(parent, []).append(index)
            roots = np.flatnonzero(trace.parent < 0).tolist()
        if concurrency is None:
            arrivals = trace.arrival.tolist()
            self._open = [(arrivals[index], index) for index in roots]
        else:
            self._due = [(0.0, index) for index in roots[:concurrency]]
            heapify(self._due)
            self._backlog = list(reversed(roots[concurrency:]))

    def _request(self, index: int, arrival: float) -> Request:
        trace = self._trace
        request = Request(index, arrival, self._prompts[index], self._limits[index])
        if trace.tenant is not None:
            request.tenant = int(trace.tenant[index])
        if trace.session is not None:
            request.session = int(trace.session[index])
        if trace.priority is not None:
            request.priority = int(trace.priority[index])
        request.ttft_slo = _target(trace.ttft_slo, index, self._ttft_slo)
        request.tpot_slo = _target(trace.tpot_slo, index, self._tpot_slo)
        if trace.predicted_output is not None:
            request.predicted_output = _given(trace.predicted_output[index])
        return request


def _target(own: npt.NDArray[np.float64] | None, index: int, of_run: float | None) -> float | None:
    """A request's own target, else the run's."""
    given = None if own is None else _given(own[index])
    return of_run if given is None else given


def _given(value: float) -> float | None:
    """A column's value, None where it is not a number."""
    return None if np.isnan(value) else float(value)
