"""The `schedsim` command."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from schedsim.cli.app import app

        app(args=with_check_value(sys.argv[1:]))
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(130)


def with_check_value(arguments: list[str]) -> list[str]:
    """`--check` alone means every iteration; the option parser knows only `--check EVERY`."""
    last = len(arguments) - 1
    return [
        "--check=1"
        if argument == "--check" and (place == last or not arguments[place + 1].isdecimal())
        else argument
        for place, argument in enumerate(arguments)
    ]
