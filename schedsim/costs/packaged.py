"""Reading the TOML tables that come with the package."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def read_packaged(name: str) -> dict[str, dict[str, Any]]:
    """The tables of the packaged file `name`, in file order; not for changing."""
    text = (resources.files("schedsim.costs") / name).read_text(encoding="utf-8")
    return tomllib.loads(text)
