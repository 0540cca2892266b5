"""The syntax of the paper's templates, and which other templates one of them renders with."""

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateSyntaxError
from jinja2.meta import find_referenced_templates


def environment(folder: Path) -> Environment:
    r"""Templates in `folder`, with delimiters that LaTeX leaves alone.

    ``\VAR{...}`` prints, lines that start with ``%%`` are statements; whatever is undefined is an error.
    """
    return Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=False,
        variable_start_string=r"\VAR{",
        variable_end_string="}",
        block_start_string=r"\BLOCK{",
        block_end_string="}",
        comment_start_string=r"\COMMENT{",
        comment_end_string="}",
        line_statement_prefix="%%",
        line_comment_prefix="%#",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def rendered_with(folder: Path, roots: Iterable[str]) -> set[str] | None:
    """Names of the templates that `roots` are rendered with, themselves included.

    Args:
        folder: Folder of the templates.
        roots: Names of templates, relative to it.

    Returns:
        The names; None where only rendering tells, because a name is computed or a template does not parse.
    """
    parser = environment(folder)
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or not (folder / name).is_file():
            continue
        found.add(name)
        try:
            needed = list(find_referenced_templates(parser.parse((folder / name).read_text("utf-8"))))
        except TemplateSyntaxError:
            return None
        named = [name for name in needed if name is not None]
        if len(named) < len(needed):
            return None
        waiting += named
    return found
