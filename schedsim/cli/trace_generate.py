"""`schedsim trace generate`, and what every command that writes a trace shares."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli.errors import user_errors
from schedsim.cli.output_file import Force, check_file
from schedsim.cli.working import working
from schedsim.errors import ConfigError
from schedsim.traces import Trace, write_trace
from schedsim.traces.generators import (
    LAWS,
    PRESETS,
    PROCESSES,
    ArrivalProcess,
    Workload,
    find_preset,
    parse_arrivals,
    parse_law,
    parse_sessions,
    parse_tenants,
    with_rate,
)
from schedsim.traces.generators.arrivals import Poisson
from schedsim.traces.writing import SUFFIXES

Seed = Annotated[int, typer.Option(help="The same seed gives the same file, byte for byte.")]


@user_errors()
def generate(
    out: Annotated[Path, typer.Option(help=f"A {', '.join(SUFFIXES)} file.")],
    requests: Annotated[int, typer.Option(help="How many requests.")] = 1000,
    preset: Annotated[
        str | None, typer.Option(help=f"{', '.join(PRESETS)}.", metavar="NAME")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Mean requests (with --sessions: session starts) per second."),
    ] = None,
    seed: Seed = 0,
    arrivals: Annotated[
        str | None, typer.Option(help=f"Arrival process: {', '.join(PROCESSES)}.", metavar="SPEC")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help=f"Prompt lengths: {', '.join(LAWS)}.", metavar="LAW")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Output lengths, as --prompt.", metavar="LAW")
    ] = None,
    rho: Annotated[
        float | None, typer.Option(help="Rank correlation of prompt and output lengths.")
    ] = None,
    tenants: Annotated[
        str | None,
        typer.Option(help="Clients of unequal rates: N, or zipf:N,exponent=1.3.", metavar="SPEC"),
    ] = None,
    sessions: Annotated[
        str | None,
        typer.Option(
            help="Multi-turn sessions: mean turns, or turns=5,system_tokens=256,think_cap=60; "
            "--prompt is then what each turn adds.",
            metavar="SPEC",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Generate a trace from a preset, from laws, or from a preset with some laws replaced.

    \b
    Examples:
      schedsim trace generate --preset azure-conv --requests 3000 --rate 5.5 \\
          --seed 1 --out conv.parquet
      schedsim trace generate --preset sharegpt --tenants 20 --rate 8 --out t.parquet
      schedsim trace generate --preset sharegpt --sessions 6 --rate 1 --out s.parquet
      schedsim trace generate --prompt fixed:512 --output exponential:mean=128 \\
          --arrivals gamma:rate=5,cv=2 --requests 10000 --out synthetic.jsonl.gz
    """
    check_out(out, force)
    workload = _workload(preset, rate, arrivals, prompt, output)
    workload = replace(
        workload,
        rho=workload.rho if rho is None else rho,
        tenants=None if tenants is None else parse_tenants(tenants),
        sessions=None if sessions is None else parse_sessions(sessions),
    )
    if tenants is not None and arrivals is not None:
        raise ConfigError("--tenants draws each client's own arrivals; give --rate, not --arrivals")
    with working(f"generating {requests:,} requests"):
        trace = workload.generate(requests, seed, preset or "generated")
        write_trace(trace, out)
    report_written(trace, out)


def _workload(
    preset: str | None,
    rate: float | None,
    arrivals: str | None,
    prompt: str | None,
    output: str | None,
) -> Workload:
    """The preset's workload with the given parts in place of its own."""
    base = None if preset is None else find_preset(preset).workload
    prompt_law = base.prompt if base else None
    output_law = base.output if base else None
    if prompt is not None:
        prompt_law = parse_law(prompt, "prompt")
    if output is not None:
        output_law = parse_law(output, "output")
    process = _process(base, rate, arrivals)
    if prompt_law is None or output_law is None or process is None:
        raise ConfigError(
            "give --preset NAME, or --prompt LAW, --output LAW and --rate R or --arrivals SPEC; "
            f"presets: {', '.join(PRESETS)}"
        )
    return Workload(process, prompt_law, output_law, rho=base.rho if base else 0.0)


def _process(
    base: Workload | None, rate: float | None, arrivals: str | None
) -> ArrivalProcess | None:
    if arrivals is not None:
        if rate is not None:
            raise ConfigError(f"give the rate once: in --arrivals {arrivals} or as --rate {rate}")
        return parse_arrivals(arrivals)
    if base is None:
        return None if rate is None else Poisson(rate)
    return base.arrivals if rate is None else with_rate(base.arrivals, rate)


def check_out(out: Path, force: bool) -> None:
    """Refuse before any work what could only fail after it.

    Raises:
        OutputError: the file exists and may not be replaced, or its folder does not exist.
        ConfigError: a suffix that says no format.
    """
    if not out.name.endswith(SUFFIXES):
        raise ConfigError(f"{out}: the suffix must be one of {', '.join(SUFFIXES)}")
    check_file(out, force)


def report_written(trace: Trace, out: Path) -> None:
    """Say on stderr what was written and what was left out."""
    dropped = trace.source.dropped
    reasons = "".join(f", {count:,} {reason}" for reason, count in dropped.items())
    span = f" over {trace.arrival[-1]:,.1f} s" if trace.has_arrivals else " without arrival times"
    typer.echo(f"{out}: {len(trace):,} requests{span}{reasons}", err=True)
