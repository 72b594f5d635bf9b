"""Coding-agent sessions: one JSON object each, requests in a closed loop, sub-agents nested."""

from typing import NamedTuple

import numpy as np

from schedsim.traces.readers.hashed import join_chains
from schedsim.traces.readers.json_records import Fields, Records
from schedsim.traces.readers.rows import Rows, int_column
from schedsim.traces.readers.source_file import SourceFile
from schedsim.traces.trace import IntColumn

_NO_ROW = -1


class _Answer(NamedTuple):
    """When a request's answer ended in the recording, and its row."""

    end: float
    row: int


class _Collector:
    """All requests of a file, in an order in which parents come before their children."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.lines: list[int] = []
        self.arrival: list[float] = []
        self.prompt: list[int] = []
        self.output: list[int] = []
        self.session: list[int] = []
        self.parent: list[int] = []
        self.think: list[float] = []
        self.chains: list[IntColumn] = []
        self.block_size = 0
        self.sub_agents = 0
        self.unsorted_sessions = 0
        self._next_id = 0

    def add_session(self, place: str, number: int, session: Fields, index: int) -> None:
        block_size = session.whole("block_size")
        if block_size < 1 or (self.block_size and block_size != self.block_size):
            wanted = f"{self.block_size} as above" if self.block_size else "at least 1"
            raise session.error("block_size", f"is not {wanted}")
        self.block_size = block_size
        first_row = len(self.lines)
        self._add_chain(session.objects("requests"), 0.0, _Answer(0.0, _NO_ROW), number, index)
        self._make_ids_global(session, first_row)

    def _make_ids_global(self, session: Fields, first_row: int) -> None:
        """Ids mean something within their session only: give each session its own range."""
        chains = self.chains[first_row:]
        if any((chain < 0).any() for chain in chains):
            raise session.error("requests", "has a negative block id in hash_ids")
        highest = max((int(chain.max()) for chain in chains if len(chain)), default=-1)
        if highest + 1 + self._next_id >= 2**62:
            raise session.error("requests", "has block ids that are too large in hash_ids")
        self.chains[first_row:] = [chain + self._next_id for chain in chains]
        self._next_id += highest + 1

    def _add_chain(
        self, entries: list[Fields], offset: float, before: _Answer, number: int, session: int
    ) -> _Answer:
        """Add the requests of one agent, which begins `offset` s into the session after `before`.

        Returns the last answer. A sub-agent starts when the newest answer that it can have waited
        for had come; the request after it waits for the sub-agent that ended last.
        """
        times = [entry.duration("t") for entry in entries]
        if times != sorted(times):
            self.unsorted_sessions += 1
            order = sorted(range(len(times)), key=times.__getitem__)
            entries, times = [entries[i] for i in order], [times[i] for i in order]
        last, branches, is_first = before, list[_Answer](), True
        for entry, time in zip(entries, times, strict=True):
            now = offset + time
            if "requests" in entry:
                branches.append(self._add_sub_agent(entry, now, last, branches, number, session))
                continue
            waits_for = max([last, *branches])
            measured = max(0.0, now - waits_for.end)
            if waits_for.row == _NO_ROW:
                think = 0.0
            elif is_first or waits_for is not last:
                think = measured
            else:
                think = entry.duration("think_time", measured)
            last = self._add_request(entry, now, waits_for, think, number, session)
            branches, is_first = [], False
        return max([last, *branches])

    def _add_sub_agent(
        self,
        entry: Fields,
        now: float,
        last: _Answer,
        branches: list[_Answer],
        number: int,
        session: int,
    ) -> _Answer:
        """A sub-agent's entry stands at its end; without a duration it starts after `last`."""
        self.sub_agents += 1
        start = max(last.end, now - entry.duration("duration_ms", 1e3 * now) / 1e3)
        waits_for = max([last, *(answer for answer in branches if answer.end <= start)])
        return self._add_chain(entry.objects("requests"), start, waits_for, number, session)

    def _add_request(
        self, entry: Fields, now: float, waits_for: _Answer, think: float, number: int, session: int
    ) -> _Answer:
        row = len(self.lines)
        if waits_for.row != _NO_ROW:
            now = max(now, self.arrival[waits_for.row])
        prompt = entry.whole("in")
        chain = entry.block_ids("hash_ids")
        if len(chain) != max(prompt, 0) // self.block_size:
            raise entry.error(
                "in",
                f"does not fit its {len(chain)} hash_ids of {self.block_size} tokens, "
                "the partial last block left out",
            )
        self.lines.append(number)
        self.arrival.append(now)
        self.prompt.append(prompt)
        self.output.append(entry.whole("out"))
        self.session.append(session)
        self.parent.append(waits_for.row)
        self.think.append(think)
        self.chains.append(chain)
        return _Answer(max(now + entry.duration("api_time", 0.0), waits_for.end), row)


def read_agentic(file: SourceFile, records: Records) -> Rows:
    """Sessions with `requests`: seconds from the session's start, 64-token blocks rounded down.

    A request waits for the one before it and its `think_time`. A sub-agent's first request waits
    for the request that called it (or an earlier sub-agent that had ended), and the caller's next
    request for the sub-agent that ended last in the recording. The sessions' own starts are not in
    the file: `arrival` counts from each session's start.

    Raises:
        TraceError: a broken field, or hash ids that do not fit the prompt.
    """
    collected = _Collector(file)
    for index, (number, fields) in enumerate(records.items):
        place = f"{records.unit} {number}"
        collected.add_session(place, number, Fields(file, place, fields), index)
    rows = Rows(
        columns={
            "arrival": np.array(collected.arrival, dtype=np.float64),
            "prompt_tokens": int_column(collected.prompt),
            "output_tokens": int_column(collected.output),
            "session": int_column(collected.session),
            "parent": int_column(collected.parent),
            "think_s": np.array(collected.think, dtype=np.float64),
        },
        lines=int_column(collected.lines),
        unit=records.unit,
        fields={"prompt_tokens": "requests[].in", "output_tokens": "requests[].out"},
        blocks=join_chains(max(collected.block_size, 1), collected.chains),
        has_arrivals=False,
    )
    rows.notes.append("block ids made global: they are local to a session in the file")
    if collected.sub_agents:
        rows.notes.append(f"{collected.sub_agents:,} sub-agents run as branches of their session")
    if collected.unsorted_sessions:
        rows.notes.append(
            f"{collected.unsorted_sessions:,} agents' requests were not in order of t"
        )
    return rows
