"""`read_trace`: choose a reader by what the file holds, not by its name."""

from collections.abc import Callable
from pathlib import Path

from schedsim.errors import ConfigError, TraceError
from schedsim.specs import unknown_name
from schedsim.traces.own_format import KEY
from schedsim.traces.readers.agentic import read_agentic
from schedsim.traces.readers.csv_formats import match_header, read_csv
from schedsim.traces.readers.csv_table import read_header
from schedsim.traces.readers.hashed import read_mooncake, read_qwen
from schedsim.traces.readers.json_records import Records, read_records
from schedsim.traces.readers.own_files import PARQUET_MAGIC, read_own_jsonl, read_parquet
from schedsim.traces.readers.plain import looks_plain, read_plain
from schedsim.traces.readers.rows import Rows, ZeroTokens, finish
from schedsim.traces.readers.source_file import SourceFile, load_file, shorten
from schedsim.traces.readers.texts import read_agent_text, read_sharegpt
from schedsim.traces.readers.tracelab import read_tracelab
from schedsim.traces.trace import Trace
from schedsim.traces.transforms import cap_think_times

FORMATS = {
    "azure": "CSV: TIMESTAMP,ContextTokens,GeneratedTokens (2023, 2024, 2025)",
    "azure-offset": "CSV: StartTimeOffset (ns),ContextTokens,GeneratedTokens",
    "burstgpt": "CSV: Timestamp,Model,Request tokens,Response tokens,…,Log Type",
    "vidur": "CSV: arrived_at,num_prefill_tokens,num_decode_tokens",
    "lengths": "CSV: num_prefill_tokens,num_decode_tokens; no arrival times",
    "mooncake": "JSON lines: timestamp (ms),input_length,output_length,hash_ids",
    "qwen-bailian": "JSON lines: chat_id,parent_chat_id,timestamp (s),input_length,…,hash_ids",
    "agentic": "JSON: sessions with block_size and requests (t,in,out,hash_ids,think_time)",
    "tracelab": "JSON lines: session_id,round_index,input_tokens_total,…,timing_events",
    "sharegpt": "JSON: conversations of texts; needs chars_per_token",
    "agent-text": "JSON lines: timestamp (µs),input,output texts; needs chars_per_token",
    "custom": "JSON or CSV: prompt_tokens or input_length…, output_tokens…, arrival optional",
    "schedsim": "Parquet or JSON lines written by schedsim",
}

_TAR_MAGIC = (257, b"ustar")
_JSON_READERS: dict[str, Callable[[SourceFile, Records], Rows]] = {
    "mooncake": read_mooncake,
    "qwen-bailian": read_qwen,
    "agentic": read_agentic,
    "tracelab": read_tracelab,
    "custom": read_plain,
}
_TEXT_READERS: dict[str, Callable[[SourceFile, Records, float | None], Rows]] = {
    "sharegpt": read_sharegpt,
    "agent-text": read_agent_text,
}


def read_trace(
    path: str | Path,
    *,
    spread_ticks: bool = False,
    zero_tokens: ZeroTokens = "drop",
    think_cap_s: float | None = None,
    chars_per_token: float | None = None,
    format: str | None = None,
) -> Trace:
    """Read a trace file, plain or gzip; its format is known by its content.

    `spread_ticks` spreads requests that share a tick of a coarse clock evenly over the tick.
    `zero_tokens`: rows with zero prompt or output tokens (failed requests) are dropped and counted,
    or kept with 1 token and counted in a note. `think_cap_s` cuts longer think times to that many
    seconds. `chars_per_token` estimates token counts where a file holds texts. `format` skips the
    detection; see `FORMATS`.

    Raises:
        TraceError: the file cannot be read, has no known format or a broken row; the message names
            the line, the field, the value and what to do.
        ConfigError: an unknown `format`, or another option out of range.
    """
    if format is not None and format not in FORMATS:
        raise unknown_name("trace format", format, FORMATS)
    if zero_tokens not in ("drop", "keep"):
        raise ConfigError(f"zero_tokens={zero_tokens!r} must be 'drop' or 'keep'")
    file = load_file(Path(path))
    format_name, rows = _read(file, format, chars_per_token)
    if isinstance(rows, Trace):
        if spread_ticks:
            raise TraceError(
                f"{file.path} was written by schedsim; spread the ticks of the original trace"
            )
        trace = rows
    else:
        if chars_per_token is not None and format_name not in _TEXT_READERS:
            raise TraceError(f"{file.path} has token counts; leave chars_per_token out")
        trace = finish(rows, file, format_name, zero_tokens, spread_ticks)
    return trace if think_cap_s is None else cap_think_times(trace, think_cap_s)


def _read(
    file: SourceFile, format: str | None, chars_per_token: float | None
) -> tuple[str, Rows | Trace]:
    data = file.data
    if data.startswith(PARQUET_MAGIC):
        _require(file, format, "schedsim")
        return "schedsim", read_parquet(file)
    if data[_TAR_MAGIC[0] :].startswith(_TAR_MAGIC[1]):
        raise TraceError(
            f"{file.path} is a tar archive, not a trace; a ServeGen archive holds distributions "
            "per client, not requests: generate a trace from them"
        )
    if data.lstrip()[:1] in (b"{", b"["):
        return _read_json(file, format, chars_per_token)
    header = read_header(file)
    layout = match_header(header, format)
    if layout is None:
        raise _unknown(file, format, data.split(b"\n", 1)[0])
    missing = [name for name in layout.required if name not in header]
    if missing:
        raise TraceError(
            f"{file.path}, line 1: no column {missing[0]!r} for format {layout.name!r} in the "
            f"header {shorten(','.join(header))}; choose another format or name the columns"
        )
    return layout.name, read_csv(file, header, layout)


def _read_json(
    file: SourceFile, format: str | None, chars_per_token: float | None
) -> tuple[str, Rows | Trace]:
    records = read_records(file)
    found = format or _detect_json(records.first)
    if found in _JSON_READERS:
        return found, _JSON_READERS[found](file, records)
    if found in _TEXT_READERS:
        return found, _TEXT_READERS[found](file, records, chars_per_token)
    if found == "schedsim":
        return found, read_own_jsonl(file, records)
    raise _unknown(file, format, ", ".join(records.first).encode())


def _detect_json(first: dict[str, object]) -> str | None:
    def has(*names: str) -> bool:
        return all(name in first for name in names)

    known = {
        "schedsim": has(KEY),
        "agentic": has("requests", "block_size"),
        "qwen-bailian": has("chat_id", "parent_chat_id", "timestamp", "input_length"),
        "mooncake": has("timestamp", "input_length", "output_length"),
        "tracelab": has("session_id", "round_index", "timing_events"),
        "sharegpt": has("conversations"),
        "agent-text": has("timestamp", "input", "output"),
        "custom": looks_plain(first),
    }
    return next((name for name, matches in known.items() if matches), None)


def _require(file: SourceFile, format: str | None, found: str) -> None:
    if format not in (None, found):
        raise TraceError(f"{file.path} is a Parquet file, not of format {format!r}")


def _unknown(file: SourceFile, format: str | None, seen: bytes) -> TraceError:
    shown = shorten(seen.decode(errors="replace").strip())
    wanted = "of no known trace format" if format is None else f"not of format {format!r}"
    known = "\n".join(f"  {name}: {text}" for name, text in FORMATS.items())
    return TraceError(f"{file.path} is {wanted}; it begins with {shown}. Known formats:\n{known}")
