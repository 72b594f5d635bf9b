"""stdout as the commands print their tables to it."""

import sys

from rich.console import Console

PIPED_WIDTH = 240


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """Where rich would end the process with 1, leave it to `user_errors`."""
        raise BrokenPipeError


def stdout_console() -> Console:
    """stdout; wide enough for every column when it is not a terminal."""
    console = _Stdout(file=sys.stdout)
    return console if console.is_terminal else _Stdout(file=sys.stdout, width=PIPED_WIDTH)
