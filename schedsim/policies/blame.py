"""What comes out of a policy's code, told in one line: foreign code may raise anything."""

import traceback
from pathlib import Path
from typing import NoReturn

from schedsim.errors import PolicyError, SchedsimError

_PACKAGE = Path(__file__).parent.parent
_CORE = (
    _PACKAGE / "scheduler",
    _PACKAGE / "memory",
    _PACKAGE / "policies" / "base.py",
    _PACKAGE / "policies" / "blame.py",
)


def failure(what: str, error: BaseException, when: str = "") -> str:
    """One line that says what `what` raised, when, and at which place of its own code."""
    if isinstance(error, SyntaxError):
        return f"{what} has a syntax error: {first_line(error)}"
    problem = f"{type(error).__name__}: {first_line(error)}".rstrip(": ")
    moment = f" {when}" if when else ""
    return f"{what} raised {problem}{moment}{_place(error)}"


def first_line(error: BaseException) -> str:
    """What an error says, up to the end of its first line that says anything."""
    return str(error).strip().partition("\n")[0]


def blame_policy(name: str, error: Exception | SystemExit, when: str) -> NoReturn:
    """Raise what came out of a hook or `schedule` of the policy called `name` as a PolicyError.

    An assertion of the core is a bug of ours and passes as it is, a user error of ours too; the
    error for an impossible action gets the place in the policy that asked for it.
    """
    if isinstance(error, AssertionError) and _is_core(_frames(error)[-1]):
        raise error
    if isinstance(error, PolicyError):
        raise PolicyError(f"{first_line(error)}{_place(error)}") from error
    if isinstance(error, SchedsimError):
        raise error
    raise PolicyError(failure(f"policy {name!r}", error, when)) from error


def _place(error: BaseException) -> str:
    """The innermost line of an error that is not in the core; empty if all are."""
    frame = next((frame for frame in reversed(_frames(error)) if not _is_core(frame)), None)
    return "" if frame is None else f" ({frame.filename}, line {frame.lineno})"


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)


def _is_core(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is ours and not the policy's."""
    path = Path(frame.filename)
    return path in _CORE or path.parent in _CORE
