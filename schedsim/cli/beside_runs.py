"""Options that mean nothing beside runs that were measured already: told, not dropped."""

from collections.abc import Collection

import typer

from schedsim.errors import ConfigError


def check_beside_runs(context: typer.Context, taken: Collection[str], purpose: str) -> None:
    """Refuse what was given on the command line beside --from and is not one of `taken`.

    `purpose` says what such options are for.

    Raises:
        ConfigError: names the option.
    """
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if option.name not in taken and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"{option.opts[0]} is for {purpose}; with --from all settings are those of the "
                "runs: leave it out"
            )
