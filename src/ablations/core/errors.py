"""Errors that the user can mend, printed by command lines as one line."""

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from pydantic import ValidationError


class UserError(Exception):
    """Something in the configuration, an input file or the environment that the user must change.

    The message is one line; command-line entry points print it after ``error:`` and exit with 1.
    """


@contextmanager
def one_line_errors(out: Path) -> Iterator[None]:
    """Run a block that makes `out`; turn its errors into one line on stderr and exit code 1.

    A fault of the program keeps its traceback.
    """
    print_any_text()
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            fail("out of memory; lower the token or document budgets in config.yaml, or use a larger machine")
        reason = to_mend(error, out)
        if reason is None:
            raise
        fail(reason)


def to_mend(error: Exception, out: Path) -> str | None:
    """What the user must mend, one line; None for a fault of the program and where memory ran out.

    Args:
        error: What was raised while `out` was made.
        out: The result.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ValidationError):
        return f"{out}: the result breaks its contract: {one_line(error)}"
    if out_of_memory(error):
        return None
    if isinstance(error, OSError):
        return f"{error.filename or out}: {error.strerror or error}"
    # Libraries written in Rust (safetensors) give the operating system's error as text only.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return f"{out}: {os.strerror(int(number[1]))}" if number else None


def require_out(out: Path, option: str = "--out") -> None:
    """Check that a result can be written, before it is computed.

    Args:
        out: File to write; for a folder to make, a file in it.
        option: Command-line option that names it.

    Raises:
        UserError: `out` is a folder, or its folder can be neither made nor written to.
    """
    try:
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        nearest = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=f".{out.name}.", suffix=".tmp"):
            pass
    except OSError as error:
        reason = error.strerror
        raise UserError(f"{option}: {out} cannot be written ({reason}); choose another file") from error


def print_any_text() -> None:
    """Print characters that stdout or stderr cannot encode as escapes, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. Torch's errors are recognised by name and text: torch is not imported here."""
    has_type = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return has_type or any(text in str(error) for text in ("DefaultCPUAllocator", "(os error 12)"))


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Key (empty for the whole) and message of the first problem of a pydantic error."""
    first = error.errors()[0]
    more = error.error_count() - 1
    message = first["msg"].removeprefix("Value error, ") + (f" (and {more} more)" if more else "")
    return ".".join(str(part) for part in first["loc"]), message


def one_line(error: ValidationError) -> str:
    """First problem of a pydantic error as ``key: message``."""
    key, message = first_problem(error)
    return f"{key or '(top level)'}: {message}"


def fail(message: str) -> None:
    """Print a one-line error and exit with 1."""
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    # Threads of native libraries may still run, and nothing that they compute is needed.
    os._exit(1)
