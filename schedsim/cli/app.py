"""The commands of `schedsim`, each in a file of its own."""

import typer

from schedsim.cli import doctor, listing, run, trace

app = typer.Typer(
    name="schedsim",
    help="A scheduling laboratory for LLM serving: what is a policy worth on a real trace?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", epilog=run.EXAMPLES)(run.run)
app.add_typer(trace.app, name="trace")
app.command("policies")(listing.policies)
app.command("models")(listing.models)
app.command("gpus")(listing.gpus)
app.command("doctor")(doctor.doctor)
