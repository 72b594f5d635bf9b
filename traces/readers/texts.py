"""Traces of texts, whose token counts can only be estimated: ShareGPT and agent prompts."""

import math

import numpy as np

from schedsim.errors import ConfigError, TraceError
from schedsim.traces.readers.json_records import Fields, Records
from schedsim.traces.readers.rows import Rows, encode_names, int_column
from schedsim.traces.readers.source_file import SourceFile

_ANSWERS = ("gpt", "assistant", "chatgpt", "bing", "bard", "model")


def _need_ratio(file: SourceFile, chars_per_token: float | None) -> float:
    if chars_per_token is None:
        raise TraceError(
            f"{file.path} holds texts, not token counts; count them with your model's tokenizer "
            "and give rows of prompt_tokens and output_tokens, or state an estimate such as "
            "chars_per_token=4.0 (schedsim trace convert --chars-per-token 4)"
        )
    if not (math.isfinite(chars_per_token) and chars_per_token > 0):
        raise ConfigError(f"chars_per_token={chars_per_token} must be a positive number, such as 4")
    return chars_per_token


def read_sharegpt(file: SourceFile, records: Records, chars_per_token: float | None) -> Rows:
    """ShareGPT's conversations: each answer is a request whose prompt is all that was said before.

    A conversation is a session in closed loop; the file has neither arrival nor think times, so
    follow-ups come at once. Token counts are characters / `chars_per_token`, rounded up.

    Raises:
        TraceError: no `chars_per_token` given, or a broken field.
        ConfigError: `chars_per_token` is not a positive number.
    """
    ratio = _need_ratio(file, chars_per_token)
    lines: list[int] = []
    prompt: list[int] = []
    output: list[int] = []
    session: list[int] = []
    parent: list[int] = []
    without_answer = 0
    for index, (number, record) in enumerate(records.items):
        said, before = 0, -1
        for turn in Fields(file, f"{records.unit} {number}", record).objects("conversations"):
            length = len(turn.text("value"))
            if turn.text("from").lower() in _ANSWERS and said:
                parent.append(before)
                before = len(lines)
                lines.append(number)
                prompt.append(math.ceil(said / ratio))
                output.append(math.ceil(length / ratio))
                session.append(index)
            said += length
        without_answer += before < 0
    rows = Rows(
        columns={
            "prompt_tokens": int_column(prompt),
            "output_tokens": int_column(output),
            "session": int_column(session),
            "parent": int_column(parent),
            "think_s": np.zeros(len(lines)),
        },
        lines=int_column(lines),
        unit=records.unit,
        fields={"prompt_tokens": "conversations[].value", "output_tokens": "conversations[].value"},
        has_arrivals=False,
    )
    if without_answer:
        rows.dropped["conversation without an answer"] = without_answer
    rows.notes.append(f"token counts estimated: {ratio:g} characters a token")
    rows.notes.append("follow-ups come at once: the file has no think times")
    return rows


def read_agent_text(file: SourceFile, records: Records, chars_per_token: float | None) -> Rows:
    """Agent prompts and answers as text, times in microseconds since 1970.

    Requests arrive as recorded: the file does not say when an answer ended.

    Raises:
        TraceError: no `chars_per_token` given, or a broken field.
        ConfigError: `chars_per_token` is not a positive number.
    """
    ratio = _need_ratio(file, chars_per_token)
    lines: list[int] = []
    times: list[int] = []
    prompt: list[int] = []
    output: list[int] = []
    sessions: list[str] = []
    for number, record in records.items:
        fields = Fields(file, f"{records.unit} {number}", record)
        lines.append(number)
        time = fields.whole("timestamp")
        if not 0 <= time < 2**63 // 1000:
            raise fields.error("timestamp", "is not a time in microseconds since 1970")
        times.append(time)
        prompt.append(math.ceil(len(fields.text("input")) / ratio))
        output.append(math.ceil(len(fields.text("output")) / ratio))
        sessions.append(fields.text("session_id") if "session_id" in fields else "")
    first = min(times)
    rows = Rows(
        columns={
            "arrival": (int_column(times) - first) / 1e6,
            "prompt_tokens": int_column(prompt),
            "output_tokens": int_column(output),
            "session": encode_names(sessions)[0],
        },
        lines=int_column(lines),
        unit=records.unit,
        fields={"prompt_tokens": "input", "output_tokens": "output"},
        start_ns=first * 1000,
    )
    rows.notes.append(f"token counts estimated: {ratio:g} characters a token")
    return rows
