"""`schedsim conform`: recorded runs of another scheduler, decided again by ours."""

from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli.diff import EXIT_DIFFERENT, print_comparison
from schedsim.cli.errors import user_errors
from schedsim.cli.progress import count_progress
from schedsim.experiments.conformance import conform as conform_one
from schedsim.experiments.recording import find_recordings, open_recording

EXAMPLES = """\
Examples:

schedsim conform cases/*.jsonl

schedsim conform recordings/ --policy my_policy.py:MyVLLM --check

schedsim conform old.jsonl.gz --policy vllm@0.19
"""


@user_errors()
def conform(
    recorded: Annotated[
        list[Path],
        typer.Argument(help="Recordings, .jsonl or .jsonl.gz, or folders of them."),
    ],
    policy: Annotated[
        str,
        typer.Option(
            help="name,parameter=value,… or file.py:Class; what it does not give comes from the "
            "recording."
        ),
    ] = "vllm",
    check: Annotated[
        int | None,
        typer.Option(
            help="Assert all invariants in every iteration, with =N in every N-th.", min=1
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Decide recorded runs again; exit code 0: all the same, 1: the first difference is shown.

    A recording of vLLM's own scheduler has its inputs in the first line, then an
    iteration a line. Every record is compared, block ids included.
    """
    paths = find_recordings(recorded)
    iterations = scheduled = preemptions = 0
    with count_progress("conform", len(paths), quiet) as advance:
        for path in paths:
            comparison = conform_one(open_recording(path), policy, check_every=check)
            if not comparison.same:
                break
            iterations += comparison.iterations
            scheduled += comparison.scheduled
            preemptions += comparison.preemptions
            advance()
    if not comparison.same:
        print_comparison(comparison)
        raise typer.Exit(EXIT_DIFFERENT)
    recordings = "1 recording" if len(paths) == 1 else f"{len(paths):,} recordings"
    typer.echo(
        f"{recordings}, {iterations:,} iterations, the same: {scheduled:,} scheduled entries, "
        f"{preemptions:,} preemptions"
    )
