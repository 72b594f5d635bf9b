"""`schedsim policies | memories | models | gpus`: what there is, a line each."""

import inspect
from typing import Any

import typer
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import user_errors
from schedsim.memory import MANAGERS
from schedsim.policies import POLICIES
from schedsim.policies.loading import find_policy, installed_policies


@user_errors()
def policies() -> None:
    """List the scheduling policies with their parameters."""
    table = Table("policy", "what it does", "parameters", box=None, pad_edge=False)
    for name, policy in POLICIES.items():
        table.add_row(name, _first_sentence(policy), _parameters(policy))
    for name in sorted(installed_policies()):
        policy = find_policy(name)
        table.add_row(name, _first_sentence(policy), _parameters(policy))
    stdout_console().print(table)
    typer.echo("Your own: --policy file.py:Class or --policy module:Class, then ,parameter=value.")


@user_errors()
def memories() -> None:
    """List the memory managers of the KV cache with their parameters."""
    table = Table("memory", "what it does", "parameters", box=None, pad_edge=False)
    for name, manager in MANAGERS.items():
        table.add_row(name, _first_sentence(manager), _parameters(manager))
    stdout_console().print(table)
    typer.echo("To name one: --memory name,parameter=value,…")


@user_errors()
def models() -> None:
    """List the model shapes that --model knows; it also takes a Hugging Face config.json."""
    from schedsim.costs import list_models

    _print_rows("model", list_models())


@user_errors()
def gpus() -> None:
    """List the GPUs that --gpu knows."""
    from schedsim.costs import list_gpus

    _print_rows("gpu", list_gpus())


def _print_rows(what: str, rows: list[tuple[str, str]]) -> None:
    table = Table(what, "description", box=None, pad_edge=False)
    for name, description in rows:
        table.add_row(name, description)
    stdout_console().print(table)


def _first_sentence(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


def _parameters(kind: type[Any]) -> str:
    parameters = inspect.signature(kind).parameters.values()
    return ", ".join(f"{p.name}={p.default}" for p in parameters) or "-"
