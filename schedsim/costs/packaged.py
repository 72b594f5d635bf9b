"""Reading what comes with the package: TOML tables, and calibrations where there are any.

A calibration is a file of `schedsim calibrate` in the folder `calibrations`, called
GPU-MODEL-KERNELS.json by the names that `--gpu` and `--model` know and its kind of kernels, `paged`
or `contiguous`.
"""

import tomllib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

KERNELS = ("paged", "contiguous")


@cache
def read_packaged(name: str) -> dict[str, dict[str, Any]]:
    """The tables of the packaged file `name`, in file order; not for changing."""
    text = (resources.files("schedsim.costs") / name).read_text(encoding="utf-8")
    return tomllib.loads(text)


def calibrations() -> Traversable:
    """The folder of the calibrations; it need not exist."""
    return resources.files("schedsim.costs") / "calibrations"


def calibration_name(gpu: str, model: str, kernels: str) -> str | None:
    """The bare name of the packaged calibration for these; None if there is none."""
    name = f"{gpu}-{model}-{kernels}"
    return name if read_calibration(name) is not None else None


def calibration_names() -> list[str]:
    """The bare names of the packaged calibrations."""
    return sorted(file.name.removesuffix(".json") for file in calibrations().iterdir())


def read_calibration(name: str) -> str | None:
    """The text of the packaged calibration of this bare name; None if there is none."""
    if "/" in name or "\\" in name:  # a path, such as --model takes
        return None
    file = calibrations() / f"{name}.json"
    return file.read_text(encoding="utf-8") if file.is_file() else None
