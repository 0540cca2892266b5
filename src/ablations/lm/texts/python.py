"""Text that ships with CPython: the topics of the language reference and the standard library's modules."""

import platform
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from ablations.core.errors import UserError
from ablations.lm.texts.raw import RawDocument, cut_at_lines
from ablations.specs.lm import PythonText

# `pydoc_data` is the topics once more, as one literal; `encodings` is character tables.
EXCLUDED_MODULES = frozenset({"pydoc_data", "encodings"})
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


def python_documents(source: PythonText) -> Iterator[RawDocument]:
    """One document per topic of `pydoc_data.topics` and per module of the standard library.

    Tests are left out. Modules longer than the source's window are cut at a line end.

    Raises:
        UserError: this is not the CPython version that the study was planned for, or a module's encoding
            cannot be read.
    """
    running = platform.python_version()
    if source.python not in (None, running):
        raise UserError(
            f"the study was planned for the text of CPython {source.python}, but this is {running};"
            " run snakemake again with this Python"
        )
    for name, text in sorted(topics.items()):
        yield RawDocument(f"topic:{name}", "topic", text)
    library = Path(sysconfig.get_path("stdlib"))
    for path in _modules(library):
        parts = path.relative_to(library).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        yield RawDocument(f"module:{name}", "module", next(cut_at_lines(_source(path), source.window)))


def _modules(library: Path) -> list[Path]:
    # By the standard library's module names: the folder also holds site-packages and files of this build.
    names = sys.stdlib_module_names - EXCLUDED_MODULES
    paths = [path for name in names for path in (library / f"{name}.py", *(library / name).rglob("*.py"))]
    return sorted(
        path for path in paths if path.is_file() and TEST_FOLDERS.isdisjoint(path.relative_to(library).parts)
    )


def _source(path: Path) -> str:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: unreadable encoding ({error}); repair this Python installation") from None
