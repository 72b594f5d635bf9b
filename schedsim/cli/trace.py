"""`schedsim trace`: look at traces, convert them, generate them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import user_errors
from schedsim.cli.output_file import Force
from schedsim.cli.trace_generate import Seed, check_out, generate, report_written
from schedsim.cli.trace_tables import as_json, info_table, rows_table
from schedsim.cli.working import working
from schedsim.errors import ConfigError
from schedsim.traces import Trace, read_trace, transforms, write_trace
from schedsim.traces.generators import parse_arrivals
from schedsim.traces.generators.arrivals import with_process
from schedsim.traces.readers.reading import FORMATS
from schedsim.traces.statistics import describe
from schedsim.traces.token_scaling import scale_tokens

app = typer.Typer(
    help="Look at request traces, convert them, generate them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SpreadTicks = Annotated[
    bool,
    typer.Option("--spread-ticks", help="Spread requests of one tick of a coarse clock."),
]
ZeroTokens = Annotated[
    Literal["drop", "keep"],
    typer.Option(help="Rows without prompt or output tokens: drop them, or keep with 1 token."),
]
ThinkCap = Annotated[
    float | None, typer.Option(help="Cut longer think times to this many seconds.")
]
CharsPerToken = Annotated[
    float | None, typer.Option(help="Estimate token counts of a trace that holds texts.")
]
Format = Annotated[
    str | None, typer.Option(help=f"Skip the detection: {', '.join(FORMATS)}.", metavar="NAME")
]
TraceFile = Annotated[Path, typer.Argument(metavar="FILE", help="A trace, plain or .gz.")]
Reader = Callable[[Path], Trace]


def _reader(
    spread_ticks: bool,
    zero_tokens: Literal["drop", "keep"],
    think_cap: float | None,
    chars_per_token: float | None,
    format: str | None,
) -> Reader:
    def read(path: Path) -> Trace:
        with working(f"reading {path.name}"):
            return read_trace(
                path,
                spread_ticks=spread_ticks,
                zero_tokens=zero_tokens,
                think_cap_s=think_cap,
                chars_per_token=chars_per_token,
                format=format,
            )

    return read


@app.command()
@user_errors()
def info(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Traces, plain or .gz.")],
    as_json_list: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    spread_ticks: SpreadTicks = False,
    zero_tokens: ZeroTokens = "drop",
    think_cap: ThinkCap = None,
    chars_per_token: CharsPerToken = None,
    format: Format = None,
) -> None:
    """Say what traces hold: rows kept and dropped, rates, burstiness, lengths, prefixes.

    \b
    Examples:
      schedsim trace info AzureLLMInferenceTrace_conv.csv.gz
      schedsim trace info one.parquet two.jsonl --json
    """
    read = _reader(spread_ticks, zero_tokens, think_cap, chars_per_token, format)
    described = [(trace, describe(trace)) for trace in map(read, files)]
    if as_json_list:
        typer.echo(json.dumps([as_json(*pair) for pair in described], indent=2))
    else:
        stdout_console().print(info_table(described))


@app.command()
@user_errors()
def head(
    file: TraceFile,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many rows.")] = 10,
    spread_ticks: SpreadTicks = False,
    zero_tokens: ZeroTokens = "drop",
    chars_per_token: CharsPerToken = None,
    format: Format = None,
) -> None:
    """Print the first rows of a trace as schedsim understands them.

    \b
    Examples:
      schedsim trace head AzureLLMInferenceTrace_code.csv.gz
      schedsim trace head sample.parquet -n 3
    """
    trace = _reader(spread_ticks, zero_tokens, None, chars_per_token, format)(file)
    stdout_console().print(rows_table(trace, rows))


@app.command()
@user_errors()
def convert(
    file: TraceFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .parquet, .jsonl or .jsonl.gz.")],
    arrivals: Annotated[
        str | None,
        typer.Option(
            help="New arrival times; in closed loop those of session starts.", metavar="SPEC"
        ),
    ] = None,
    merge: Annotated[
        list[Path] | None, typer.Option(help="Add a trace on the absolute clock.", metavar="FILE")
    ] = None,
    overlay: Annotated[
        list[Path] | None, typer.Option(help="Add a trace, both from time 0.", metavar="FILE")
    ] = None,
    thin: Annotated[
        float | None, typer.Option(help="Keep each request or session with this probability.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Cut out START:END seconds.", metavar="START:END")
    ] = None,
    rate_scale: Annotated[
        float | None, typer.Option(help="Make the traffic this many times as dense.")
    ] = None,
    token_scale: Annotated[
        float | None, typer.Option(help="Make prompts and outputs this many times as long.")
    ] = None,
    max_context: Annotated[
        int | None, typer.Option(help="Longest prompt and output together, in tokens.")
    ] = None,
    over: Annotated[
        Literal["drop", "clip"], typer.Option(help="What to do with longer requests.")
    ] = "drop",
    limit: Annotated[
        int | None, typer.Option(help="Keep the first N requests.", metavar="N")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    spread_ticks: SpreadTicks = False,
    zero_tokens: ZeroTokens = "drop",
    think_cap: ThinkCap = None,
    chars_per_token: CharsPerToken = None,
    format: Format = None,
) -> None:
    """Read a trace of any known format, change it, write it as Parquet or JSON lines.

    The changes are made in the order of the options above.

    \b
    Examples:
      schedsim trace convert conv.csv.gz conv.parquet --window 600:1200
      schedsim trace convert conv.csv.gz both.parquet --merge code.csv.gz
      schedsim trace convert lengths.csv chat.parquet --arrivals poisson:rate=5
      schedsim trace convert long.jsonl.gz short.jsonl --max-context 8192 --over clip
    """
    check_out(out, force)
    read = _reader(spread_ticks, zero_tokens, think_cap, chars_per_token, format)
    trace = read(file)
    rng = np.random.default_rng(seed)
    if arrivals is not None:
        trace = with_process(trace, parse_arrivals(arrivals), rng)
    if merge:
        trace = transforms.merge([trace, *map(read, merge)])
    if overlay:
        trace = transforms.overlay([trace, *map(read, overlay)])
    if thin is not None:
        trace = transforms.thin(trace, thin, rng)
    if window is not None:
        trace = transforms.window(trace, *_window(window))
    if rate_scale is not None:
        trace = transforms.scale_time(trace, rate_scale)
    if token_scale is not None:
        trace = scale_tokens(trace, token_scale)
    if max_context is not None:
        trace = transforms.over_context(trace, max_context, over)
    if limit is not None:
        trace = transforms.limit(trace, limit)
    with working(f"writing {out.name}"):
        write_trace(trace, out)
    report_written(trace, out)


def _window(text: str) -> tuple[float, float]:
    start, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(start), float(end)
    except ValueError:
        raise ConfigError(f"--window {text!r} must be START:END in seconds, as 600:1200") from None


app.command("generate")(generate)
