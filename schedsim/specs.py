"""Spec strings: `name,key=value,…`, the form in which the command line names every part.

`name:key=value,…` and `name:value` are read alike, so `poisson:rate=5`, `const:2048` and
`vllm,watermark=0.01` share one grammar.
"""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from schedsim.errors import ConfigError

T = TypeVar("T")


class Spec(NamedTuple):
    """A parsed spec: the name, its `key=value` parameters and at most one bare value."""

    name: str
    parameters: dict[str, str]
    value: str | None


def parse_spec(text: str) -> Spec:
    """Parse `name`, `name,key=value,…`, `name:key=value,…` or `name:value`.

    Raises:
        ConfigError: the text is empty, a parameter has no name or stands twice.
    """
    head, _, rest = text.partition(",")
    name, _, after_colon = head.partition(":")
    if _names_plugin(name, after_colon):  # `module:Class`: the colon belongs to the name
        name, after_colon = head, ""
    fields = [field for field in (after_colon, rest) if field]
    if not name:
        raise ConfigError(f"{text!r} names nothing; write name,key=value,…")
    parameters: dict[str, str] = {}
    value = None
    for field in ",".join(fields).split(",") if fields else ():
        key, equals, given = field.partition("=")
        key = key.strip()
        if not equals:
            if value is not None or parameters:
                raise ConfigError(f"{field!r} in {text!r} is not key=value")
            value = field.strip()
        elif not key:
            raise ConfigError(f"{field!r} in {text!r} has no name before '='")
        elif key in parameters:
            raise ConfigError(f"{key!r} stands twice in {text!r}")
        else:
            parameters[key] = given.strip()
    return Spec(name.strip(), parameters, value)


def _names_plugin(name: str, after_colon: str) -> bool:
    is_class = after_colon.isidentifier() and after_colon[:1].isupper()
    return bool(after_colon) and (name.endswith(".py") or is_class)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that no registry holds: lists the known ones, suggests the nearest."""
    names = sorted(known)
    by_lower = {known_name.lower(): known_name for known_name in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
    return ConfigError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


def build_from_spec(kind: str, factory: Callable[..., T], spec: Spec) -> T:
    """Call `factory` (a dataclass or a function) with the spec's parameters, typed as it wants.

    A bare value goes to the first parameter. Supported types: int, float, bool, str, `Literal`
    and `X | None` of these.

    Raises:
        ConfigError: an unknown or missing parameter, or a value of the wrong type; a ConfigError
            from the factory itself (a value out of range) passes through.
    """
    known = inspect.signature(factory, eval_str=True).parameters
    given = dict(spec.parameters)
    if spec.value is not None:
        if not known:
            raise ConfigError(f"{kind} {spec.name!r} takes no value, got {spec.value!r}")
        first = next(iter(known))
        if first in given:
            raise ConfigError(f"{kind} {spec.name!r}: {first!r} is given twice")
        given[first] = spec.value
    arguments: dict[str, Any] = {}
    for key, text in given.items():
        if key not in known:
            names = ", ".join(known) or "none"
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{kind} {spec.name!r} has no parameter {key!r}.{hint} Its parameters: {names}."
            )
        try:
            arguments[key] = _convert(text, _type_of(known[key]))
        except ValueError as error:
            raise ConfigError(f"{kind} {spec.name!r}: {key}={text!r}: {error}") from None
    missing = [
        key
        for key, parameter in known.items()
        if parameter.default is inspect.Parameter.empty and key not in arguments
    ]
    if missing:
        raise ConfigError(f"{kind} {spec.name!r} needs {', '.join(f'{key}=…' for key in missing)}")
    return factory(**arguments)


def _type_of(parameter: inspect.Parameter) -> Any:
    """The parameter's annotation; without one, the type of its default."""
    if parameter.annotation is not inspect.Parameter.empty:
        return parameter.annotation
    plain = type(parameter.default)
    return plain if plain in (bool, int, float) else str


def _convert(text: str, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(map(str, choices))}")
        return text
    if origin in (typing.Union, types.UnionType):
        alternatives = typing.get_args(hint)
        if types.NoneType in alternatives and text.lower() == "none":
            return None
        return _convert(text, next(a for a in alternatives if a is not types.NoneType))
    if hint is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError("must be true or false")
        return text.lower() in ("true", "1", "yes")
    if hint is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError("must be a whole number") from None
    if hint is float:
        try:
            return float(text)
        except ValueError:
            raise ValueError("must be a number") from None
    return text
