"""Two experiments or two studies side by side."""

import shutil

import pytest

from ablations.core.errors import UserError
from ablations.study.compare import compare_experiments, compare_studies, read_study
from ablations.study.planning.stages import COLLECT_STAMP
from tests.paper.synthetic import write_study


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A finished study whose records' paths are relative to it, the working directory."""
    monkeypatch.chdir(tmp_path)
    plan = write_study(tmp_path / "study")
    text = plan.read_text().replace(f"{tmp_path}/study/", "")
    stamp = tmp_path / "study" / COLLECT_STAMP
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(text)
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


def experiments(folder, *names):
    plan = read_study(folder)
    by_id = {experiment.id: experiment for experiment in plan.experiments}
    return [by_id[name] for name in names], plan.settings


def test_two_experiments_with_their_specs_and_the_paired_effect(folder):
    (a7, a9), settings = experiments(folder, "A7", "A9")
    lines = compare_experiments(a7, a9, settings).splitlines()
    assert lines[0].split() == ["A7", "A9", "A7", "against", "A9"]
    cells = {line.split("  ")[0]: line for line in lines[1:]}
    assert "0.5" in cells["keep_ratios"]
    assert "0.8" in cells["keep_ratios"]
    assert "p=" in cells["text (KL, nats per token)"]
    assert "p=" in cells["retrieval (answer NLL, nats per token)"]
    assert "p=" in cells["speed (times the reference)"]
    assert lines[-1].startswith("95 % intervals and p-values of one comparison each, unadjusted")


def test_an_effect_over_several_trainings_says_of_how_many(folder):
    (a5, baseline), settings = experiments(folder, "A5", "baseline")
    cells = {line.split("  ")[0]: line for line in compare_experiments(a5, baseline, settings).splitlines()}
    seeds = len({*a5.seeds} & {*baseline.seeds})
    assert seeds > 1
    assert cells["text (KL, nats per token)"].endswith(f"seeds={seeds}")
    assert "seeds=" not in cells["speed (times the reference)"]


def test_a_study_against_itself_differs_in_nothing(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    lines = compare_studies(folder, tmp_path / "copy").splitlines()
    text = [line for line in lines if " text " in line]
    assert text
    assert all("+0.000 [+0.000, +0.000] p=1" in line for line in text)


def test_what_cannot_be_compared_is_named(folder, tmp_path):
    (a7, f2), settings = experiments(folder, "A7", "F2")
    with pytest.raises(UserError, match="A7 is of sdtp, F2 of dynatree"):
        compare_experiments(a7, f2, settings)
    missing = a7.model_copy(update={"records": ("nowhere.json",)})
    with pytest.raises(UserError, match="A7 was not measured; run `snakemake --cores 1 A7` first"):
        compare_experiments(a7, missing, settings)
    with pytest.raises(UserError, match="holds no study"):
        read_study(tmp_path)
