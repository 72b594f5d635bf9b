"""`schedsim doctor`: what this machine can run."""

import os
import platform
from importlib import metadata, util

from rich.markup import escape
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import user_errors
from schedsim.errors import ConfigError
from schedsim.experiments.execution import INSTALL, missing_packages
from schedsim.report.figures import check_installed

PACKAGES = (
    *("numpy", "pyarrow", "pandas", "pydantic", "simpy", "typer", "torch", "triton"),
    *("altair", "vl-convert-python", "pyyaml", "ray"),
)


@user_errors()
def doctor() -> None:
    """Say what this machine can run: versions, processors, and whether there is a CUDA device."""
    table = Table("what", "status", box=None, pad_edge=False)
    table.add_row("schedsim", metadata.version("schedsim"))
    table.add_row("Python", f"{platform.python_version()} on {platform.platform()}")
    table.add_row("processors", str(os.cpu_count()))
    for package in PACKAGES:
        table.add_row(package, _version(package))
    table.add_row("simulation", "yes: schedsim run")
    table.add_row("report", escape(_report()))
    table.add_row("execution", escape(_execution()))
    table.add_row("CUDA device", escape(_gpu()))
    stdout_console().print(table)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _report() -> str:
    try:
        check_installed()
    except ConfigError as error:
        return f"no: {error}"
    return "yes: schedsim report"


def _execution() -> str:
    missing = missing_packages()
    if missing:
        return f"no: {' and '.join(missing)} missing; {INSTALL}"
    return "yes: schedsim execute"


def _gpu() -> str:
    if util.find_spec("torch") is None or util.find_spec("triton") is None:
        return "no: torch and triton are not installed"
    import torch

    if not torch.cuda.is_available():
        return "no: torch sees no CUDA device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"yes: {', '.join(names)}"
