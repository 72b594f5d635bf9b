"""How a command ends when it cannot go on: one message on stderr and an exit code."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from schedsim.errors import SchedsimError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_REMEDIES = {
    errno.ENOSPC: "make room or write elsewhere",
    errno.EDQUOT: "make room or write elsewhere",
    errno.EACCES: "check its permissions or choose another place",
    errno.EPERM: "check its permissions or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file, not a folder",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "check the path",
    errno.EFBIG: "raise the limit on file sizes or write elsewhere",
    errno.EIO: "check the device or write elsewhere",
}


@contextmanager
def user_errors() -> Iterator[None]:
    """Around a command (also as a decorator): a user's mistake is told without a traceback.

    SchedsimError and the file system's refusals end with exit code 2, Ctrl-C with 130. A reader of
    our output that went away, as `head` does, is no error. Anything else is a bug and passes.
    """
    try:
        yield
    except SchedsimError as error:
        _stop(f"error: {error}", EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _stop("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Python flushes stdout once more at exit; let that go nowhere instead of failing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"error: {where}{error.strerror}; {_REMEDIES[error.errno]}", EXIT_USER_ERROR)


def _stop(message: str, code: int) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(code) from None
