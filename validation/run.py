"""The protocol of PROTOCOL.md, one call after the other: `measure` on the device, then `evaluate`.

`measure` makes the runs that are missing until the time that it is given is over; called again with
the same folder it goes on. `evaluate` simulates what was measured, on any machine.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli.errors import user_errors
from schedsim.cli.output_file import Force, check_file
from schedsim.cli.progress import count_progress
from schedsim.cli.side_by_side import note
from schedsim.cli.validate import parse_margins
from schedsim.errors import ConfigError, OutputError
from schedsim.experiments.protocol.evaluating import evaluate as evaluate_protocol
from schedsim.experiments.protocol.evaluating import num_validations
from schedsim.experiments.protocol.measuring import Campaign
from schedsim.experiments.protocol.plan import Share, read_protocol
from schedsim.experiments.protocol.table import markdown_of
from schedsim.results.directory import check_unused, write_whole

HERE = Path(__file__).resolve().parent
RESULTS = ("results.json", "results.md")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

Cells = Annotated[Path, typer.Option(help="The protocol's file.")]
Traces = Annotated[Path, typer.Option(help="Folder of the traces that the file names.")]
State = Annotated[Path, typer.Option(help="Folder of the runs and of index.json.")]
States = Annotated[
    list[Path], typer.Option("--state", help="Folder of runs; may stand several times.")
]


def parse_share(text: str, beside: Sequence[Path]) -> Share:
    """The share `K/N`, which has N - 1 others beside it."""
    share, _, shares = text.partition("/")
    if not (share.isdecimal() and shares.isdecimal() and 1 <= int(share) <= int(shares)):
        raise ConfigError(f"--share {text}: write K/N with K from 1 to N, such as 1/2")
    if len(beside) != int(shares) - 1:
        raise ConfigError(
            f"--share {text}: name the folder of every other share with --beside; "
            f"{int(shares) - 1} are to be named, {len(beside)} are"
        )
    return Share(int(share), int(shares))


@app.command()
@user_errors()
def measure(
    state: State,
    minutes: Annotated[
        float, typer.Option(help="No run is begun that would not end in this time.", min=0)
    ] = 9.0,
    cells: Cells = HERE / "cells.toml",
    traces: Traces = HERE.parent.parent / "shared" / "traces",
    share: Annotated[
        str, typer.Option(help="K/N: only the K-th of N shares of the repeats, one for each GPU.")
    ] = "1/1",
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="State of another share; one for each of them."),
    ] = None,
) -> None:
    """Make the runs that are missing, as long as there is time; the next call goes on."""
    began = time.monotonic()
    campaign = Campaign(
        read_protocol(cells),
        state,
        traces,
        seconds_left=lambda: began + 60 * minutes - time.monotonic(),
        share=parse_share(share, beside or ()),
        beside=beside or (),
        command=["validation/run.py", *sys.argv[1:]],
        tell=lambda text: typer.echo(f"{time.monotonic() - began:6.1f} s: {text}"),
    )
    done = campaign.measure()
    typer.echo(f"{len(done.measured)} runs measured, {done.missing} missing")


@app.command()
@user_errors()
def evaluate(
    states: States,
    out: Annotated[Path, typer.Option(help="Folder for results.json and results.md.")],
    step_time: Annotated[
        str, typer.Option(help="The step time to hold, such as fitted:h100.json.")
    ],
    cells: Cells = HERE / "cells.toml",
    traces: Traces = HERE.parent.parent / "shared" / "traces",
    margin: Annotated[
        str | None, typer.Option(help="As for `schedsim validate`; the protocol's by default.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="New directory for the simulations; else they go away.")
    ] = None,
    force: Force = False,
) -> None:
    """Validate every cell that was measured and write the tables."""
    protocol = read_protocol(cells)
    if not out.is_dir():
        raise OutputError(f"{out} is no folder; create it first")
    for name in RESULTS:
        check_file(out / name, force)
    if keep is not None:
        check_unused(keep)
    scratch = tempfile.TemporaryDirectory() if keep is None else nullcontext(str(keep))
    with (
        scratch as folder,
        count_progress("evaluating", num_validations(protocol), False, "validations") as advance,
    ):
        found = evaluate_protocol(
            protocol,
            states,
            traces,
            step_time,
            Path(folder),
            margins=parse_margins(margin),
            progress=advance,
        )
    content = json.dumps(found.as_json(), indent=1, ensure_ascii=False)
    heading = f"Simulated against measured: the {protocol.purpose} cells"
    for name, text in zip(RESULTS, (content + "\n", markdown_of(found, heading)), strict=True):
        write_whole(out / name, text)
        note(f"wrote {out / name}")


if __name__ == "__main__":
    app()
