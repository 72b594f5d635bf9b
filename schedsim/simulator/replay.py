"""`Replay`: walks through the recorded moments of another run, iteration by iteration."""

from schedsim.costs.recorded import RecordedTimes
from schedsim.errors import ReplayError
from schedsim.scheduler import Batch


class Replay:
    """Where a replay stands in the record. The engine looks exactly when the recorded one looked.

    A replay that decides otherwise than the recorded run ends with an error at that iteration: its
    times would mean nothing from there on.
    """

    def __init__(self, times: RecordedTimes) -> None:
        self._times = times
        self._row = 0
        self._idle = 0

    @property
    def at_end(self) -> bool:
        """Whether every recorded iteration has run."""
        return self._row == len(self._times)

    @property
    def cut_short(self) -> bool:
        """Whether the record ends here because the recorded run was stopped, not done."""
        return self.at_end and not self._times.complete

    def next_look(self) -> float:
        """The next moment at which the recorded engine looked; not `at_end`."""
        times = self._times
        if self._idle < times.idle_offsets[self._row + 1]:
            return float(times.idle_looks[self._idle])
        return float(times.decided_at[self._row])

    def nothing_ran(self, now: float) -> None:
        """The look at `now` ran nothing.

        Raises:
            ReplayError: the recorded one ran an iteration.
        """
        times = self._times
        if self._idle < times.idle_offsets[self._row + 1]:
            self._idle += 1
            return
        raise self._diverged(f"nothing runs at {now} s", self._recorded())

    def stopped(self) -> ReplayError:
        """What a replay that is `cut_short` ends with."""
        times = self._times
        return ReplayError(
            f"the recorded run {times.name} was stopped after {len(times)} iterations, and so is "
            "its replay"
        )

    def span(self, batch: Batch) -> tuple[float, float]:
        """Start and end of `batch`, just decided, as recorded.

        Raises:
            ReplayError: the recorded engine ran nothing at this look, or another batch.
        """
        times, row = self._times, self._row
        runs = _described(batch.prefill_tokens, batch.decode_requests, len(batch.preempted))
        if self.at_end:
            raise self._diverged(f"{runs} at {batch.decided_at} s", "had nothing left to run")
        if self._idle < times.idle_offsets[row + 1]:
            raise self._diverged(f"{runs} at {batch.decided_at} s", "ran nothing")
        if runs != self._recorded():
            raise self._diverged(runs, self._recorded())
        self._row += 1
        return float(times.start[row]), float(times.end[row])

    def _recorded(self) -> str:
        times, row = self._times, self._row
        return _described(
            int(times.prefill_tokens[row]),
            int(times.decode_requests[row]),
            int(times.preempted[row]),
        )

    def _diverged(self, here: str, there: str) -> ReplayError:
        return ReplayError(
            f"iteration {self._row} of the replay: {here}; the recorded run: {there}. A replay "
            f"needs the trace, policy and settings of {self._times.name} (see its manifest.json); "
            "`schedsim diff` shows where two runs with --decisions part"
        )


def _described(prefill_tokens: int, decodes: int, preempted: int) -> str:
    return f"{prefill_tokens} prefill tokens, {decodes} decodes, {preempted} preempted"
