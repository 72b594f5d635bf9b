"""Finding a policy by name: shipped, from an installed package, or from the user's own file."""

import difflib
import importlib
import importlib.util
import inspect
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from schedsim.errors import ConfigError, PolicyError
from schedsim.policies import POLICIES
from schedsim.policies.base import Policy
from schedsim.policies.blame import failure
from schedsim.policies.composed import Composed
from schedsim.specs import build_from_spec, parse_spec, unknown_name

ENTRY_POINT_GROUP = "schedsim.policies"


def make_policy(text: str) -> Policy:
    """Build the policy of the spec `text`: `name`, `file.py:Class` or `module:Class`, parameters.

    Parameters alone, `order=srtf,admit=peak`, are those of `composed`.

    Names are the shipped policies and those that installed packages register under the
    entry-point group `schedsim.policies`.

    Raises:
        ConfigError: an unknown name or parameter, a file or class that is not there.
        PolicyError: the policy's code does not import, or its constructor raises.
    """
    spec = parse_spec(text)
    if _names_a_part(spec.name):
        spec = parse_spec(f"{Composed.name},{text}")
    if spec.value in POLICIES:
        raise ConfigError(
            f"--policy {text!r}: what stands after the comma are parameters; to run several "
            f"policies write --policy {spec.name} --policy {spec.value}"
        )
    policy_class = find_policy(spec.name)
    try:
        policy = build_from_spec("policy", policy_class, spec)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # a constructor is foreign code
        raise PolicyError(failure(f"policy {spec.name!r}: its constructor", error)) from error
    return policy


def _names_a_part(name: str) -> bool:
    """Whether `name` is `parameter=value` for a parameter of `composed`, or nearly one."""
    key, equals, _ = name.partition("=")
    parts = inspect.signature(Composed).parameters
    return bool(equals) and bool(difflib.get_close_matches(key, parts, n=1))


def find_policy(name: str) -> type[Policy]:
    """The policy class called `name`; raises as `make_policy`."""
    if name in POLICIES:
        return POLICIES[name]
    if ":" in name:
        place, _, class_name = name.rpartition(":")
        module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
        return _as_policy(getattr(module, class_name, None), name, module)
    installed = installed_policies()
    if name in installed:
        try:
            found = installed[name].load()
        except (Exception, SystemExit) as error:  # as above
            raise PolicyError(failure(f"the installed policy {name!r}", error)) from error
        return _as_policy(found, name, None)
    if name.endswith(".py"):
        raise ConfigError(f"policy {name!r} names a file; name the class in it too: {name}:Class")
    unknown = unknown_name("policy", name, [*POLICIES, *installed])
    raise ConfigError(f"{unknown} Your own: file.py:Class or module:Class.")


def installed_policies() -> dict[str, EntryPoint]:
    """Policies that other installed packages register, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"policy file {str(path)!r} is not there; check the path")
    name = f"schedsim_policy_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # as above
        del sys.modules[name]
        raise PolicyError(failure(f"policy file {str(path)!r}", error)) from error
    return module


def _import(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"{name!r} is neither a module nor a policy file; a file's name ends in .py"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"policy module {name!r} is not installed; a file is named with its suffix, "
                "as in my_policy.py:MyPolicy"
            ) from None
        raise PolicyError(failure(f"policy module {name!r}", error)) from error
    except (Exception, SystemExit) as error:  # as above
        raise PolicyError(failure(f"policy module {name!r}", error)) from error


def _as_policy(found: Any, name: str, module: ModuleType | None) -> type[Policy]:
    if isinstance(found, type) and issubclass(found, Policy):
        return found
    if module is None:
        raise ConfigError(f"policy {name!r} is no subclass of schedsim.Policy")
    there = sorted(
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Policy) and value is not Policy
    )
    place, _, class_name = name.rpartition(":")
    near = difflib.get_close_matches(class_name, there, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"{place!r} has no policy class {class_name!r}.{hint} "
        f"Its subclasses of schedsim.Policy: {', '.join(there) or 'none'}."
    )
