"""Published numbers: one file, in a column of their own, beside what the very setting measured."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.core.errors import UserError
from ablations.paper.numbers import all_quantities
from ablations.paper.published import read_published
from ablations.paper.section import render_section
from ablations.paper.tables import write_tables
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import NUMBERS_STAMP, SECTION_STAMP, TABLES_STAMP
from ablations.study.planning.stamps import write_stamps

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "paper/templates"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"


GROUPS = [(study, group) for group in read_published(TEMPLATES).groups for study in group.studies]


@pytest.mark.parametrize(("study", "group"), GROUPS, ids=lambda item: getattr(item, "title", item))
def test_every_number_in_their_place_is_one_that_its_study_measures(tmp_path, monkeypatch, study, group):
    """Ids, prompt lengths, ratios and kinds of the overlays, and the names of docs/paper.md."""
    monkeypatch.chdir(tmp_path)
    names = set(re.findall(r"[a-z_]+", (ROOT / "docs/paper.md").read_text()))
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(raw, yaml.safe_load((ROOT / f"workflow/studies/{study}.yaml").read_text()))
    plan = Plan(raw, ROOT)
    assert plan.config.study == study
    assert group.model in plan.paper_plan("x").sources.values()
    ids = {row.experiment.id for row in plan.rows}
    points = {f"sweep.{job.spec.tokens}.{ratio:g}" for job in plan.sweeps for ratio in job.spec.keep_ratios}
    kinds = {f"{name}.{kind}" for name in ids for kind in plan.config.dynatree.prompts}
    for value in group.values:
        if value.number is not None:
            place, _, quantity = value.number.rpartition(".")
            assert place in ids | points | kinds, value.number
            assert quantity in names, value.number


def test_a_cell_is_filled_by_the_very_setting_alone(study, tmp_path):
    """Rows of the synthetic study take the places of published ones, then under another name or model."""
    number = next(item for item in all_quantities(study.summary) if item.name == "F1.throughput")
    own = {"study": "paper-scale-dynatree-500", "sources": {"dynatree": "EleutherAI/pythia-2.8b"}}

    def cell(**changes):
        summary = study.summary.model_copy(update={**own, **changes})
        write_tables(summary, TEMPLATES, tmp_path)
        line = next(
            line for line in (tmp_path / "published.tex").read_text().splitlines() if "127.9 tokens/s" in line
        )
        return line, render_section(summary, TEMPLATES)

    line, section = cell()
    assert number.text in line
    assert r"\input{tables/published}" in section
    for changes in ({"study": "stand-ins"}, {"sources": {"dynatree": "stand-ins/tiny"}}):
        line, section = cell(**changes)
        assert "not measured (paper-scale-dynatree-500)" in line
        assert number.text not in line
        assert r"\input{tables/published}" not in section


def test_an_edit_of_the_file_makes_tables_and_section_stale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TEMPLATES, tmp_path / "paper/templates")
    for folder in ("texts", "drafts"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    plan = Plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT)

    def stamps() -> list[str]:
        write_stamps(plan, tmp_path)
        return [Path(stamp).read_text() for stamp in (TABLES_STAMP, SECTION_STAMP, NUMBERS_STAMP)]

    tables, section, numbers = stamps()
    with (tmp_path / "paper/templates/published.yaml").open("a") as file:
        file.write("# a word more\n")
    edited = stamps()
    assert edited[0] != tables
    assert edited[1] != section
    assert edited[2] == numbers


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unit: points", "unit: apples", "unit"),
        ("source: dynatree-plan", "source: nowhere", "source 'nowhere' is not in 'sources'"),
        (
            "    studies: [paper-scale-dynatree-500, paper-scale]\n",
            "",
            "needs the keys 'studies' and 'model'",
        ),
        ('value: "42.34"', 'value: "about 42"', "value"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, old, new, message):
    text = (TEMPLATES / "published.yaml").read_text()
    assert old in text
    (tmp_path / "published.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"published\.yaml: .*{message}"):
        read_published(tmp_path)
