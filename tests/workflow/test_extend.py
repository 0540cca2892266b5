"""A study goes on to its next declared look, with what is open and no more, and stays there."""

import json

import pytest
import yaml

LOOKS = [
    {"documents": 6, "retrieval": 4, "alpha": 0.02},
    {"documents": 9, "retrieval": 6, "alpha": 0.03},
]
OVERLAY = "looks.yaml"

pytestmark = pytest.mark.full


def counts(checkout, experiment):
    """Documents and prompts of each record of an experiment that the study has now."""
    plan = json.loads((checkout.path / "results/stamp/collect.json").read_text())
    paths = next(row["records"] for row in plan["experiments"] if row["id"] == experiment)
    records = [json.loads((checkout.path / path).read_text()) for path in paths]
    return {(len(record["samples"]), len(record["totals"]["retrieval"])) for record in records}


def test_what_is_open_goes_on_and_nothing_else_is_measured(study, monkeypatch):
    overlay = yaml.safe_load((study.path / study.OVERLAYS[0]).read_text())
    overlay["paper"]["looks"] = LOOKS
    # Margins that the tiny study's effects on text lie at: A7's is open, and more documents would decide it.
    (study.path / OVERLAY).write_text(yaml.safe_dump(overlay, sort_keys=False))
    monkeypatch.setattr(type(study), "OVERLAYS", (OVERLAY,))
    done = study.snakemake("paper/ablation.tex", study=OVERLAY)
    assert done.code == 0, done.output
    blocks = study.blocks()

    said = study.ask("extend", "--minutes", "5")
    chosen = {line.split()[0] for line in said.splitlines() if line.startswith("  ") and "decided in" in line}
    assert (study.path / "results/extension.json").exists(), said
    done = study.snakemake("paper/ablation.tex", study=OVERLAY)
    assert done.code == 0, done.output
    assert study.blocks().items() >= blocks.items()
    assert counts(study, "baseline") != {(6, 4)}
    assert all(counts(study, name) == {(6, 4)} for name in ("A2", "A5", "A7", "B1m") if name not in chosen)
    assert "Nothing to be done" in study.snakemake("paper/ablation.tex", study=OVERLAY).output

    # Without the file the study is what its configuration says.
    (study.path / "results/extension.json").unlink()
    done = study.snakemake("paper/ablation.tex", study=OVERLAY)
    assert done.code == 0, done.output
    assert counts(study, "baseline") == {(6, 4)}
