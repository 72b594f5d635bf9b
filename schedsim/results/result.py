"""`Result`: the tables and the summary of one run, and how they are written."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from schedsim.results.columns import RequestColumns, StepColumns
from schedsim.results.directory import RunDirectory
from schedsim.results.latency import Latencies
from schedsim.results.record import RunRecord
from schedsim.results.summary import summarize
from schedsim.results.token_times import TokenTimes

if TYPE_CHECKING:
    import pandas
    import pyarrow


class Result:
    """What a run brought: `requests_table` and `steps_table` (Arrow), `summary` (a plain dict)."""

    def __init__(
        self,
        requests_table: "pyarrow.Table",
        steps_table: "pyarrow.Table",
        summary: dict[str, Any],
    ) -> None:
        self.requests_table = requests_table
        self.steps_table = steps_table
        self.summary = summary

    @cached_property
    def requests(self) -> "pandas.DataFrame":
        """One row a request, in trace order; made at the first use."""
        frame: pandas.DataFrame = self.requests_table.to_pandas()
        return frame

    @cached_property
    def steps(self) -> "pandas.DataFrame":
        """One row an iteration; made at the first use."""
        frame: pandas.DataFrame = self.steps_table.to_pandas()
        return frame

    def write(self, directory: RunDirectory) -> None:
        """Write requests.parquet, steps.parquet and summary.json; equal runs, equal bytes.

        Raises:
            OutputError: a file cannot be written.
        """
        directory.write_parquet("requests.parquet", self.requests_table)
        directory.write_parquet("steps.parquet", self.steps_table)
        directory.write_json("summary.json", self.summary)


def build_result(record: RunRecord) -> Result:
    """Compute the tables and every metric of a run."""
    from schedsim.results.tables import requests_table, steps_table  # pyarrow is slow to import

    requests = RequestColumns.from_record(record)
    steps = StepColumns.from_log(record.steps)
    tokens = TokenTimes.from_log(record.tokens, requests.first_token, steps.end)
    latencies = Latencies.of(requests, tokens)
    # What the summary needs for a while is gone before the tables take their room.
    summary = summarize(record, requests, steps, tokens, latencies)
    return Result(
        requests_table(requests, latencies, record.trace.tenant_names, record.replica),
        steps_table(steps, record.replica),
        summary,
    )
