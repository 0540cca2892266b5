"""Templates: jinja2 with delimiters that LaTeX leaves alone, where whatever is undefined is an error."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from ablations.paper.formatting import CONSTANTS, FILTERS
from ablations.paper.summary import Summary
from ablations.study.errors import UserError


def render(templates: Path, name: str, summary: Summary, **context: Any) -> str:
    r"""Render a template: ``\VAR{...}`` prints, lines that start with ``%%`` are statements.

    Args:
        templates: Folder of the templates.
        name: Template.
        summary: What was measured; templates see it as `summary`.
        context: What else the template needs.

    Raises:
        UserError: a template is missing, does not parse, or prints something that is not there.
    """
    environment = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        finalize=_present,
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
    environment.filters.update(FILTERS)
    environment.globals.update(CONSTANTS, summary=summary)
    try:
        return environment.get_template(name).render(**context)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        place = f"{getattr(error, 'name', None) or name}" + (f":{line}" if line else "")
        raise UserError(f"{templates / place}: {type(error).__name__}: {error.message}") from error


def _present(value: object) -> object:
    """Refuse to print a None: a value that was not measured needs its own sentence."""
    if value is None:
        raise TemplateError("a value that is null would be printed; guard it with a condition")
    return value
