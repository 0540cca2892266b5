"""Command lines that end well or with one line saying what to do."""

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

from ablations.study.errors import UserError


@contextmanager
def one_line_errors(out: Path) -> Iterator[None]:
    """Run a block that makes `out`; turn its errors into one line on stderr and exit code 1.

    What is a mistake of the program rather than of the user keeps its traceback.
    """
    print_any_text()
    try:
        yield
    except UserError as error:
        fail(str(error))
    except ValidationError as error:
        fail(f"{out}: the result breaks its contract: {one_line(error)}")
    except OSError as error:
        fail(f"{error.filename or out}: {error.strerror or error}")
    except Exception as error:
        if out_of_memory(error):
            fail("out of memory; lower the token or document budgets in config.yaml, or use a larger machine")
        # Libraries in Rust, as safetensors, tell the operating system's error in words alone.
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            fail(f"{out}: {os.strerror(int(number[1]))}")
        raise


def require_out(out: Path, option: str = "--out") -> None:
    """Check that a result can be written where it is to be, before the work that it will hold.

    Args:
        out: File to be; of a folder to be, a file in it.
        option: What names it on the command line.

    Raises:
        UserError: it is a folder, or its folder can be neither made nor written to.
    """
    try:
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        nearest = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=f".{out.name}.", suffix=".tmp"):
            pass
    except OSError as error:
        why = error.strerror
        raise UserError(f"{option}: {out} cannot be written ({why}); choose another file") from error


def print_any_text() -> None:
    """Have characters that the terminal or a log cannot show printed as escapes, not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch's errors are known by name and text, as this package never imports it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(text in str(error) for text in ("DefaultCPUAllocator", "(os error 12)"))


def one_line(error: ValidationError) -> str:
    """First problem of a pydantic error as ``key: message``."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "(top level)"
    more = error.error_count() - 1
    return f"{where}: {first['msg']}" + (f" (and {more} more)" if more else "")


def fail(message: str) -> None:
    """Print a one-line error and exit with 1."""
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    # A job may hold threads of native libraries; nothing of it is worth waiting for.
    os._exit(1)
