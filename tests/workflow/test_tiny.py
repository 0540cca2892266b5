"""The tiny study through real Snakemake: what it makes, and what an edit makes stale."""

import json
import re
import subprocess
import sys

from tests.workflow.conftest import MADE, TINY

RENDERING = [
    "Collecting the records into results/summary.json",
    "Drawing figures",
    "Writing numbers and where each comes from",
    "Writing tables",
]
SECTION = "Writing paper/ablation.tex"
ALL_RENDERING = sorted([*RENDERING, SECTION])


def measuring(name: str) -> list[str]:
    """Messages of the jobs that measure an SDTP experiment and join its record."""
    return [f"Evaluating 3 blocks side by side: {name} (3) (SDTP)", f"Joining the blocks of {name}"]


def measured(planned: list[str]) -> list[str]:
    """Those of the messages that speak of measuring."""
    return [job for job in planned if job.startswith(("Evaluating", "Decoding", "Replaying"))]


def test_the_section_its_tables_and_figures_are_made_of_records(finished):
    section = (finished.path / "paper/ablation.tex").read_text()
    assert r"\label{tab:ablation}" in (finished.path / "paper/tables/decoding.tex").read_text()
    assert r"\section{" in section
    for name in ("keep_ratio", "forward"):
        assert (finished.path / f"paper/figures/{name}.pdf").read_bytes().startswith(b"%PDF")
    outcomes = {
        (content := json.loads(text))["label"]: content["outcome"]["status"]
        for text in finished.records().values()
    }
    shown = subprocess.run(
        [sys.executable, "-m", "ablations.study", "show", "--configfile", TINY],
        cwd=finished.path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {line.split()[0] for line in shown if "2 of 2 measured" in line} == {"baseline", "A5"}
    assert all("1 of 1 measured" in line or "2 of 2 measured" in line for line in shown)
    assert len(outcomes) == len({line.split()[1] for line in shown})
    # The stale rotary tensor must crash, and nothing else may.
    assert [name for name, status in outcomes.items() if status != "ok"] == ["B2"]


def test_a_second_run_has_nothing_to_do(study):
    assert "Nothing to be done" in study.snakemake(*MADE).output


def test_an_arms_value_reruns_that_arm_and_the_paper(study):
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.6}")
    assert study.planned() == sorted([*measuring("A7"), *ALL_RENDERING])
    study.replace("config.yaml", "schedule: {keep_ratio: 0.6}", "schedule: {keep_ratio: 0.5}")
    assert study.planned() == []


def test_wording_and_templates_rerun_rendering_alone(study):
    study.replace("config.yaml", "Over-pruning costs quality", "Heavy pruning costs quality")
    assert study.planned() == ALL_RENDERING
    study.replace("config.yaml", "Heavy pruning costs quality", "Over-pruning costs quality")
    assert study.planned() == []
    template = next((study.path / "paper/templates").rglob("ablation.tex.j2"))
    template.write_text(template.read_text() + "\n% a word\n")
    assert set(study.planned()) <= set(ALL_RENDERING)
    assert SECTION in study.planned()


def test_loss_logic_reruns_training_and_no_decoding(study):
    losses = "src/ablations/sdtp/training/losses.py"
    source = (study.path / losses).read_text()
    (study.path / losses).write_text(source + "\n# a comment changes nothing\n")
    assert study.planned() == []
    (study.path / losses).write_text(source + "\n\nOTHER = 1\n")
    planned = study.planned()
    learned = {"A3b", "A5", "A6", "A7", "A9", "B1", "B1m", "B2", "C1", "C2", "C3", "LD", "P1", "baseline"}
    assert "Training baseline, A3b, A5" in planned
    over_ranks, one = measured(planned)
    # Two have a second training, and three are not timed.
    assert one.startswith(f"Evaluating {3 * len(learned) + 2 * 2 - 3} blocks side by side: baseline (5), ")
    assert {*re.findall(r"(\w+) \(\d\)", one)} < learned
    assert one.endswith(" and 2 more (SDTP)")
    assert over_ranks == "Evaluating 4 blocks side by side: GB (2), G0 (2) (SDTP over several ranks)"
    joined = {job.rpartition(" ")[2] for job in planned if job.startswith("Joining")}
    assert joined == learned | {"GB", "G0"}
    assert not [job for job in planned if job.startswith(("Decoding", "Replaying", "Measuring", "Counting"))]
    assert not [job for job in planned if job.startswith(("Preparing", "Extracting"))]


def test_a_lost_checkpoint_is_rebuilt_only_for_new_experiments(study):
    for manifest in (study.path / "results/model").glob("*/manifest.json"):
        manifest.unlink()
    assert study.planned() == []
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.6}")
    planned = study.planned()
    assert measured(planned) == measuring("A7")[:1]
    assert sum(job.startswith("Preparing checkpoint") for job in planned) == 1
    assert not [job for job in planned if job.startswith(("Training", "Extracting", "Counting"))]


def test_a_forgotten_record_and_lost_tables_come_back(study):
    study.replace("config.yaml", "Over-pruning costs quality", "Heavy pruning costs quality")
    study.planned()
    study.replace("config.yaml", "Heavy pruning costs quality", "Over-pruning costs quality")
    command = [sys.executable, "-m", "ablations.study", "forget", "A9", "--configfile", TINY]
    subprocess.run(command, cwd=study.path, check=True, capture_output=True)
    assert study.planned() == sorted([*measuring("A9"), *ALL_RENDERING])
    assert study.snakemake("paper/ablation.tex").code == 0
    assert study.planned() == []
    (study.path / "paper/tables/decoding.tex").unlink()
    assert study.planned() == ["Writing paper/ablation.tex", "Writing tables"]
    assert study.snakemake("paper/ablation.tex").code == 0
    assert study.planned() == []


def test_a_new_ablation_needs_yaml_only_and_appears_in_the_table(study):
    study.replace(
        "config.yaml",
        "    A7:\n",
        "    X6:\n      title: Keep ratio 0.6\n      section: ratio\n"
        "      change: {schedule: {keep_ratio: 0.6}}\n      expect: {quality: down}\n    A7:\n",
    )
    study.replace("config.yaml", "main: [baseline,", "main: [X6, baseline,")
    study.replace(TINY, "only: [A1,", "only: [X6, A1,")
    before = study.records()
    done = study.snakemake("paper/ablation.tex")
    assert done.code == 0, done.output
    assert measuring("X6")[0] in done.output
    assert "X6" in (study.path / "paper/tables/sdtp_matrix.tex").read_text()
    after = study.records()
    assert len(after) == len(before) + 1
    assert {name: after[name] for name in before} == before


def test_a_configuration_typo_is_one_line_and_leaves_results_alone(study):
    before = study.records()
    study.replace("config.yaml", "keep_ratio: 0.5", "keep_ration: 0.5")
    done = study.snakemake("paper/ablation.tex")
    assert done.code != 0
    assert (
        "error: sdtp.ablations.A7.change.schedule.keep_ration: unknown key; did you mean 'keep_ratio'?"
        in done.output.splitlines()
    )
    assert "Traceback" not in done.output
    assert study.records() == before


def test_ids_that_would_be_lost_or_taken_for_a_rule_are_named(study):
    study.replace("config.yaml", "    A8:\n", "    A7:\n")
    done = study.snakemake("-n")
    assert done.code != 0
    assert "the key 'A7' is there twice, and the first one would be lost" in done.output
    study.replace("config.yaml", "    A7:\n", "    tables:\n")
    study.replace(TINY, "only: [A1,", "only: [tables, A1,")
    done = study.snakemake("-n")
    assert done.code != 0
    assert "error: sdtp.ablations.tables: this id is the name of a rule of the workflow" in done.output


def test_a_corrupt_model_is_named_and_finished_results_stay(study):
    before = study.records()
    # The target is the larger of the two models.
    study.spoil(
        max((study.path / "results/model").rglob("model.safetensors"), key=lambda path: path.stat().st_size)
    )
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.6}")
    done = study.snakemake("paper/ablation.tex")
    assert done.code != 0
    assert "model.safetensors: its SHA-256 is not the one in manifest.json" in done.output
    assert "Traceback" not in done.output
    assert study.records() == before


def test_an_empty_text_is_named_and_finished_results_stay(study):
    before = study.records()
    (study.path / "mine.txt").write_text("  \n")
    study.replace("config.yaml", "  humaneval:\n", "  mine: {source: local, path: mine.txt}\n  humaneval:\n")
    study.replace(
        "config.yaml", "sdtp:\n  model: smollm2\n  text: python", "sdtp:\n  model: smollm2\n  text: mine"
    )
    done = study.snakemake("paper/ablation.tex")
    assert done.code != 0
    assert "mine.txt" in done.output
    assert any(line.startswith("error: ") or "error: " in line for line in done.output.splitlines())
    assert "Traceback" not in done.output
    assert study.records() == before


def test_one_experiment_runs_by_id_and_by_hand(study):
    record, old = study.record("A7"), json.loads(study.record("A7").read_text())
    study.forget("A7")
    for command in study.commands("A7"):
        subprocess.run(
            [sys.executable, *command],
            cwd=study.path,
            env=study.environment,
            check=True,
            capture_output=True,
        )
    new = json.loads(record.read_text())
    assert [row["nll"] for row in new["samples"]] == [row["nll"] for row in old["samples"]]
    study.forget("A7")
    done = study.snakemake("A7")
    assert done.code == 0, done.output
    assert measuring("A7")[0] in done.output
    assert "A9" not in done.output
