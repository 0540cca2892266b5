"""A rendered synthetic study."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ablations.evidence.inputs import PaperInput
from ablations.paper.collect import summarise
from ablations.paper.section import render_section
from ablations.paper.summary import Summary
from ablations.paper.tables import write_tables
from tests.paper.design import WHOLE
from tests.paper.synthetic import write_study

TEMPLATES = Path(__file__).parents[2] / "paper" / "templates"

# The scripts that recompute import one another as scripts do.
sys.path.append(str(Path(__file__).parent))


class Study(NamedTuple):
    """A study that went through collect, tables and section."""

    plan: Path
    summary: Summary
    tables: Path
    section: str

    def table(self, name: str) -> str:
        return (self.tables / name).read_text()


@pytest.fixture(scope="session")
def render(tmp_path_factory) -> Callable[..., Study]:
    """Write a synthetic study with the given peculiarities and render it."""

    def rendered(**peculiarities) -> Study:
        folder = tmp_path_factory.mktemp("study")
        plan = write_study(folder, **peculiarities)
        summary = summarise(PaperInput.model_validate_json(plan.read_bytes()))
        write_tables(summary, TEMPLATES, folder / "tables")
        return Study(plan, summary, folder / "tables", render_section(summary, TEMPLATES))

    return rendered


@pytest.fixture(scope="session")
def study(render) -> Study:
    """Every experiment ran."""
    return render()


@pytest.fixture(scope="session")
def whole(render) -> Study:
    """Every row of the full design, with sweeps and grids."""
    return render(
        design=WHOLE,
        lengths=(512, 1024, 2048, 4096),
        grids=True,
        settings={"main": ("baseline", "A1", "A7")},
    )
