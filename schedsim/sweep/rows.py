"""A run of a sweep as a row of the dataset, and the rows as a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from schedsim.config import RunSettings
from schedsim.errors import SchedsimError
from schedsim.experiments.runs import run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.sweep.points import Point
from schedsim.sweep.traces import load_trace
from schedsim.traces import Trace

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]

_LEFT_OUT = ("schema_version", "interrupted", "steady_window_s")
_BY_REASON = ("dropped", "rejected_by_reason", "failed_by_reason")


class Runner:
    """Runs points; keeps the trace read last, for the next one mostly wants it again."""

    def __init__(self) -> None:
        self._name: tuple[str, int] | None = None
        self._trace: Trace | None = None

    def __call__(self, point: Point) -> Row:
        """The row of a point. A run that fails is a row with an `error` and no figures."""
        settings = point.settings()
        row: Row = {"run": point.key(), **point.columns(), "error": None}
        try:
            name = point.trace, settings.seed
            if self._trace is None or self._name != name:
                self._name, self._trace = name, load_trace(*name)
            outcome = run_policy(prepare_trace(self._trace, settings), settings)
        except SchedsimError as error:
            return row | {"error": str(error)}
        if outcome.is_interrupted:
            raise KeyboardInterrupt
        if outcome.error is not None:
            return row | {"error": str(outcome.error)}
        return row | flat_summary(outcome.result.summary)


def flat_summary(summary: Mapping[str, Any]) -> Row:
    """The figures of a summary by their paths, as in `latency.whole.ttft_s.p99`."""
    flat: Row = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, part in value.items():
                if name not in _BY_REASON:
                    add(f"{path}.{name}", part)
        elif value is not None:
            flat[path] = value

    for name, value in summary.items():
        if name not in _LEFT_OUT:
            add(name, value)
    return flat


def rows_table(rows: Sequence[Row]) -> "pyarrow.Table":
    """The rows as an Arrow table: what was set first, then the figures; null where a run has none.

    The same rows give the same table.
    """
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, _kind(name, values))
    return pa.table(columns)


def _kind(name: str, values: Iterable[Any]) -> "pyarrow.DataType":
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if name in RunSettings.model_fields:
        hint = RunSettings.model_fields[name].annotation
        kinds = set(get_args(hint) or (hint,)) - {type(None)}
    if str in kinds or name in ("trace", "error"):
        return pa.string()
    if kinds == {bool}:
        return pa.bool_()
    return pa.int64() if kinds == {int} else pa.float64()
