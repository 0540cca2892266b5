"""Templates: jinja2 with delimiters that LaTeX leaves alone, where whatever is undefined is an error."""

from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from ablations.core.errors import UserError
from ablations.paper.summary import Summary
from ablations.paper.vocabulary import CONSTANTS, FILTERS
from ablations.study.templates import environment


def render(templates: Path, name: str, summary: Summary, **context: Any) -> str:
    """Render a template.

    Args:
        templates: Folder of the templates.
        name: Template.
        summary: What was measured; templates see it as `summary`.
        context: What else the template needs.

    Raises:
        UserError: a template is missing, does not parse, or prints something that is not there.
    """
    found = environment(templates)
    found.finalize = _present
    found.filters.update(FILTERS)
    found.globals.update(CONSTANTS, summary=summary)
    try:
        return found.get_template(name).render(**context)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        place = f"{getattr(error, 'name', None) or name}" + (f":{line}" if line else "")
        raise UserError(f"{templates / place}: {type(error).__name__}: {error.message}") from error


def _present(value: object) -> object:
    """Refuse to print a None: a value that was not measured needs its own sentence."""
    if value is None:
        raise TemplateError("a value that is null would be printed; guard it with a condition")
    return value
