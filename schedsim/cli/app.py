"""The commands of `schedsim`, each in a file of its own."""

from importlib import metadata
from typing import Annotated

import typer

from schedsim.cli import (
    calibrate,
    conform,
    diff,
    doctor,
    execute,
    listing,
    reproduce,
    run,
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
app.command("execute", epilog=execute.EXAMPLES)(execute.execute)
app.command("calibrate", epilog=calibrate.EXAMPLES)(calibrate.calibrate)
app.command("validate", epilog=validate.EXAMPLES)(validate.validate)
app.command("diff", epilog=diff.EXAMPLES)(diff.diff)
app.command("conform", epilog=conform.EXAMPLES)(conform.conform)
app.command("reproduce", epilog=reproduce.EXAMPLES)(reproduce.reproduce)
app.add_typer(trace.app, name="trace")
app.command("policies")(listing.policies)
app.command("memories")(listing.memories)
app.command("models")(listing.models)
app.command("gpus")(listing.gpus)
app.command("doctor")(doctor.doctor)
