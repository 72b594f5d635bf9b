"""The commands of `schedsim`, each in a file of its own."""

from importlib import metadata
from typing import Annotated

import typer

from schedsim.cli import (
    ablate,
    calibrate,
    compare,
    conform,
    diff,
    doctor,
    execute,
    listing,
    report,
    reproduce,
    run,
    sweep,
    trace,
    validate,
)

app = typer.Typer(
    name="schedsim",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"schedsim {metadata.version('schedsim')}")
        raise typer.Exit


@app.callback(epilog="Begin with `schedsim run`: the bundled sample under one policy.")
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A scheduling laboratory for LLM serving: what is a policy worth on a real trace?"""


app.command("run", epilog=run.EXAMPLES)(run.run)
app.command("sweep", epilog=sweep.EXAMPLES)(sweep.sweep)
app.command("execute", epilog=execute.EXAMPLES)(execute.execute)
app.command("calibrate", epilog=calibrate.EXAMPLES)(calibrate.calibrate)
app.command("validate", epilog=validate.EXAMPLES)(validate.validate)
app.command("compare", epilog=compare.EXAMPLES)(compare.compare)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("diff", epilog=diff.EXAMPLES)(diff.diff)
app.command("conform", epilog=conform.EXAMPLES)(conform.conform)
app.command("ablate", epilog=ablate.EXAMPLES)(ablate.ablate)
app.command("reproduce", epilog=reproduce.EXAMPLES)(reproduce.reproduce)
app.add_typer(trace.app, name="trace")
app.command("policies", epilog="Example: schedsim policies")(listing.policies)
app.command("memories", epilog="Example: schedsim memories")(listing.memories)
app.command("models", epilog="Example: schedsim models")(listing.models)
app.command("gpus", epilog="Example: schedsim gpus")(listing.gpus)
app.command("doctor", epilog="Example: schedsim doctor")(doctor.doctor)
