"""The `schedsim` command."""

import sys


def main() -> None:
    """Run the command line."""
    from schedsim.cli.app import app

    app(args=with_check_value(sys.argv[1:]))


def with_check_value(arguments: list[str]) -> list[str]:
    """`--check` alone means every iteration; the option parser knows only `--check=EVERY`."""
    return ["--check=1" if argument == "--check" else argument for argument in arguments]
