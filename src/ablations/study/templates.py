"""Syntax of the paper's templates, and the templates that each one includes."""

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateSyntaxError
from jinja2.meta import find_referenced_templates


def environment(folder: Path) -> Environment:
    r"""Jinja environment of the templates in `folder`, with delimiters that do not clash with LaTeX.

    ``\VAR{...}`` prints a value, a line that starts with ``%%`` is a statement. Undefined names are errors.
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
    """Names of the templates that `roots` are rendered with, the roots included.

    Args:
        folder: Folder of the templates.
        roots: Names of templates, relative to the folder.

    Returns:
        The names; None where they cannot be told, because a name is computed or a template does not parse.
    """
    parser = environment(folder)
    visited: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name in visited or not (folder / name).is_file():
            continue
        visited.add(name)
        try:
            references = list(find_referenced_templates(parser.parse((folder / name).read_text("utf-8"))))
        except TemplateSyntaxError:
            return None
        literal = [reference for reference in references if reference is not None]
        if len(literal) < len(references):
            return None
        pending += literal
    return visited
