"""Mooncake and Qwen-Bailian: JSON lines of token counts and prompt block hashes."""

from collections.abc import Callable

import numpy as np

from schedsim.errors import TraceError
from schedsim.traces.readers.json_records import Fields, Records
from schedsim.traces.readers.rows import Rows, int_column
from schedsim.traces.readers.source_file import SourceFile
from schedsim.traces.trace import FloatColumn, IntColumn, PromptBlocks

MOONCAKE_BLOCK = 512
QWEN_BLOCK = 16
_OTHER_BLOCKS = (16, 32, 64, 128, 256, 1024)  # what tools that took over the format write


def join_chains(block_size: int, chains: list[IntColumn]) -> PromptBlocks:
    """One ragged array from the chain of each request."""
    offsets = np.zeros(len(chains) + 1, dtype=np.int64)
    np.cumsum([len(chain) for chain in chains], out=offsets[1:])
    ids = np.concatenate(chains) if chains else np.zeros(0, dtype=np.int64)
    return PromptBlocks(block_size, offsets, ids)


class _Counts:
    """The fields both formats share, collected row by row."""

    def __init__(self, file: SourceFile, unit: str) -> None:
        self.file, self.unit = file, unit
        self.lines: list[int] = []
        self.times: list[float] = []
        self.prompt: list[int] = []
        self.output: list[int] = []
        self.chains: list[IntColumn] = []

    def add(self, number: int, fields: Fields) -> None:
        self.lines.append(number)
        self.times.append(fields.number("timestamp"))
        self.prompt.append(fields.whole("input_length"))
        self.output.append(fields.whole("output_length"))
        if "hash_ids" in fields:
            self.chains.append(fields.block_ids("hash_ids"))
        elif self.chains:
            raise fields.error("hash_ids", "is missing where the rows above have it")

    def rows(self, seconds_per_unit: float) -> Rows:
        times: FloatColumn = np.array(self.times, dtype=np.float64)
        return Rows(
            columns={
                "arrival": times if seconds_per_unit == 1.0 else times * seconds_per_unit,
                "prompt_tokens": int_column(self.prompt),
                "output_tokens": int_column(self.output),
            },
            lines=int_column(self.lines),
            unit=self.unit,
            fields={
                "arrival": "timestamp",
                "prompt_tokens": "input_length",
                "output_tokens": "output_length",
            },
        )

    def blocks(
        self, rows: Rows, sizes: tuple[int, ...], fits: Callable[[IntColumn, IntColumn, int], bool]
    ) -> PromptBlocks | None:
        """The chains, with the first block size of `sizes` that explains every row."""
        if not self.chains:
            return None
        if len(self.chains) != len(self.lines):
            raise TraceError(
                f"{self.file.path}, {self.unit} {self.lines[0]}, hash_ids: is missing where rows "
                "below have it; give it in every row or in none"
            )
        lengths = np.array([len(chain) for chain in self.chains], dtype=np.int64)
        prompt = rows.columns["prompt_tokens"]
        for size in sizes:
            if fits(lengths, prompt, size):
                return join_chains(size, self.chains)
        needed = -(-prompt // sizes[0])
        row = int(np.argmax(lengths != needed))
        raise self.file.broken(
            f"{self.unit} {self.lines[row]}",
            "hash_ids",
            int(lengths[row]),
            f"blocks of {sizes[0]} tokens do not make input_length {prompt[row]} (needs "
            f"{needed[row]}), and no other block size explains every row",
            "correct the row, or leave hash_ids out of the file",
        )


def _rounds_up(lengths: IntColumn, prompt: IntColumn, size: int) -> bool:
    return bool((lengths == -(-prompt // size)).all())


def _rounds_either_way(lengths: IntColumn, prompt: IntColumn, size: int) -> bool:
    return bool(((lengths >= prompt // size) & (lengths <= -(-prompt // size))).all())


def read_mooncake(file: SourceFile, records: Records) -> Rows:
    """Mooncake's rows: milliseconds, 512-token blocks with the last partial one included.

    Files in this layout with another block size are known by their chain lengths.

    Raises:
        TraceError: a broken field, or chains that fit no block size.
    """
    counts = _Counts(file, records.unit)
    for number, fields in records.items:
        counts.add(number, Fields(file, f"{records.unit} {number}", fields))
    rows = counts.rows(seconds_per_unit=1e-3)
    # Exact to the last bit of the decimal number of seconds, as a division is.
    rows.columns["arrival"] = np.array(counts.times, dtype=np.float64) / 1e3
    rows.blocks = counts.blocks(rows, (MOONCAKE_BLOCK, *_OTHER_BLOCKS), _rounds_up)
    if rows.blocks is not None and rows.blocks.block_size != MOONCAKE_BLOCK:
        rows.notes.append(f"hash_ids stand for blocks of {rows.blocks.block_size} tokens")
    rows.tick_s = _find_tick(rows.columns["arrival"])
    return rows


def _find_tick(arrival: FloatColumn) -> float | None:
    """The clock's tick, where most requests share their time with another one; else None."""
    distinct = np.unique(arrival)
    if len(distinct) < 2 or 2 * len(distinct) > len(arrival):
        return None
    return float(np.median(np.diff(distinct)))


def read_qwen(file: SourceFile, records: Records) -> Rows:
    """Qwen-Bailian's rows: seconds, 16-token blocks, chats linked by `parent_chat_id`.

    A chat becomes a session. Its turns arrive as recorded (open loop): the file says neither when
    an answer ended nor how long the user thought, so there is nothing to release a turn by.

    Raises:
        TraceError: a broken field, or chains that do not fit the block size.
    """
    counts = _Counts(file, records.unit)
    session_of_chat: dict[int, int] = {}
    sessions: list[int] = []
    lost_parents = 0
    for number, record in records.items:
        fields = Fields(file, f"{records.unit} {number}", record)
        counts.add(number, fields)
        chat, parent = fields.whole("chat_id"), fields.whole("parent_chat_id")
        session = session_of_chat.get(parent) if parent >= 0 else None
        lost_parents += parent >= 0 and session is None
        if session is None:
            session = len(sessions)  # unique; made dense below
        session_of_chat[chat] = session
        sessions.append(session)
    rows = counts.rows(seconds_per_unit=1.0)
    rows.blocks = counts.blocks(rows, (QWEN_BLOCK,), _rounds_either_way)
    rows.columns["session"] = np.unique(int_column(sessions), return_inverse=True)[1]
    rows.notes.append("turns of a chat arrive as recorded: the file has no think times")
    if lost_parents:
        rows.notes.append(f"{lost_parents:,} turns follow a chat that the file does not hold")
    return rows
