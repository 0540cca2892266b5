"""State of experiments, what is missing, and what is deleted: with blocks and records of the tiny study."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.core.errors import UserError
from ablations.study import __main__ as commands
from ablations.study.planning.plan import Plan
from ablations.study.prune import remove, unneeded
from ablations.study.status import blocks, remaining_work, statuses

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def raw():
    found: dict = {}
    for name in ("config.yaml", "workflow/studies/tiny.yaml"):
        update_config(found, yaml.safe_load((ROOT / name).read_text()))
    found["panel"] = {"documents": 2}
    return found


def planned(raw, **sections):
    copied = copy.deepcopy(raw)
    update_config(copied, sections)
    plan = Plan(copied, ROOT)
    plan.write_specs()
    return plan


def write(path: Path, text: str = "{}") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def measure(plan, *names):
    """Write all blocks of experiments."""
    for name in names:
        for series in (series for job in plan.row(name).jobs for series in job.series.values()):
            for first, end in series.missing(2):
                write(series.path / f"{first}-{end}.json")


def join(plan, *names):
    """Write all records of experiments."""
    environment = {"measured_at": "2026-01-01T00:00:00+00:00", "seconds": 9.0, "device": "d"}
    for name in names:
        for job in plan.row(name).jobs:
            file = job.file.model_dump(mode="json")
            digests = {"code": file["code_digest"], "inputs": file["input_digests"], "pins": file["pins"]}
            record = {"label": name, "spec": file["spec"], "environment": environment, "digests": digests}
            write(job.path, json.dumps(record))


def state(plan, name):
    (status,) = (status for status in statuses(plan) if status.id == name)
    return status.state, status.reason


def test_from_nothing_to_a_record(raw):
    plan = planned(raw)
    assert state(plan, "A7") == ("never run", "")
    text, retrieval, prefill = plan.row("A7").jobs[0].inputs.values()
    for series in (text, prefill, retrieval):
        write(series.path / "0-1.json")
    # Of text documents 1, 2 to 3 and 4 to 5 are missing, of retrieval 1 and 2 to 3, of prefill 1.
    assert blocks(text, plan) == (1, 3)
    assert state(plan, "A7") == ("unfinished", "6 of 9 blocks are missing")
    measure(plan, "A7")
    assert state(plan, "A7") == ("unfinished", "all of its blocks are there; its record is to be joined")
    join(plan, "A7")
    assert state(plan, "A7") == ("fresh", "")


def test_a_crash_among_the_wanted_items_is_all_that_is_wanted(raw):
    plan = planned(raw)
    text = plan.row("A7").jobs[0].inputs["text"]
    write(text.path / "1-crashed.json")
    assert blocks(text, plan) == (1, 0)
    write(text.path / "9-crashed.json")
    (text.path / "1-crashed.json").unlink()
    assert blocks(text, plan) == (0, 3)


def test_more_documents_lack_blocks_and_fewer_only_a_record(raw):
    plan = planned(raw)
    measure(plan, "A7")
    join(plan, "A7")
    more = planned(raw, sdtp={"evaluation": {"documents": 8}})
    assert state(more, "A7") == ("unfinished", "1 of 7 blocks are missing")
    fewer = planned(raw, sdtp={"evaluation": {"documents": 5}})
    assert state(fewer, "A7")[0] == "unfinished"
    assert "to be joined" in state(fewer, "A7")[1]


def test_what_changed_is_said_once_for_all_measures(raw):
    plan = planned(raw)
    measure(plan, "A7")
    join(plan, "A7")
    change = {"schedule": {"keep_ratio": 0.55}}
    other = planned(raw, sdtp={"ablations": {"A7": {"change": change}}})
    assert state(other, "A7") == (
        "stale",
        "spec keep_ratios.0 0.5 -> 0.55; spec keep_ratios.1 0.5 -> 0.55 and 1 more;"
        " 6 of 6 blocks are missing",
    )
    rounds = planned(raw, sdtp={"evaluation": {"timing": {"repeats": 3}}})
    assert state(rounds, "A7") == ("stale", "spec repeats 2 -> 3; 1 of 6 blocks are missing")
    text = planned(raw, texts={"python": {"window": 5000}})
    assert state(text, "A7")[1].startswith("input text: spec text.window 6000 -> 5000")


def test_a_measure_that_is_new_and_blocks_that_are_gone(raw):
    before = planned(raw, sdtp={"evaluation": {"retrieval": None}})
    measure(before, "A7")
    join(before, "A7")
    plan = planned(raw)
    assert state(plan, "A7") == ("stale", "retrieval was not measured; 2 of 6 blocks are missing")
    before.row("A7").jobs[0].path.unlink()
    measure(plan, "A7")
    join(plan, "A7")
    remove(job.path for job in plan.row("A7").jobs[0].inputs.values())
    assert state(plan, "A7") == ("fresh", "")
    more = planned(raw, sdtp={"evaluation": {"documents": 8}})
    assert state(more, "A7") == ("stale", "its blocks are gone; 7 of 7 blocks are missing")


def test_a_seed_that_is_new(raw):
    plan = planned(raw, sdtp={"seeds": [0]})
    measure(plan, "A5")
    join(plan, "A5")
    more = planned(raw)
    assert state(more, "A5") == ("stale", "not all of its seeds were measured; 5 of 5 blocks are missing")
    write(more.row("A5").jobs[1].inputs["text"].path / "0-2.json")
    assert state(more, "A5")[1].endswith("4 of 5 blocks are missing")
    longer = planned(raw, sdtp={"evaluation": {"documents": 8}})
    assert state(longer, "A5") == ("stale", "not all of its seeds were measured; 6 of 12 blocks are missing")


def test_a_record_of_the_time_before_blocks_is_told_from_one_of_today(raw):
    """Its inputs had the names of series, and were artefacts."""
    plan = planned(raw)
    join(plan, "A7")
    (path,) = (job.path for job in plan.row("A7").jobs)
    record = json.loads(path.read_text())
    path.unlink()
    text = plan.row("A7").jobs[0].inputs["text"].inputs["text"].digest
    record["digests"]["inputs"] = {"model": "0" * 16, "text": text}
    write(path.with_name("0123456789abcdef.json"), json.dumps(record))
    assert state(plan, "A7") == (
        "stale",
        "the spec of its text of then is gone; retrieval was not measured and 1 more;"
        " 6 of 6 blocks are missing",
    )


def test_remaining_work_counts_experiments_blocks_and_other_jobs(raw):
    plan = planned(
        raw,
        sdtp={"only": ["A7"]},
        dynatree={"only": [], "grids": None},
        paper={"confirmatory": {"sdtp": ["A7"], "dynatree": []}},
    )
    left = remaining_work(plan)
    # The baseline has a second seed, which is not timed.
    assert (left.experiments, left.blocks) == (2, 6 + 6 + 5)
    # Model, text, saliency, a pruner for each seed, two lengths of the sweep.
    assert left.jobs == 7
    # Of panels: trainings, evaluations, sweeps.
    assert (left.seconds, left.unknown) == (0.0, 6)
    measure(plan, "A7")
    assert (remaining_work(plan).experiments, remaining_work(plan).blocks) == (2, 11)
    join(plan, "A7")
    assert (remaining_work(plan).experiments, remaining_work(plan).blocks) == (1, 11)


def asked(monkeypatch, capsys, *arguments):
    """What a command says."""
    monkeypatch.setattr(commands, "root", lambda: ROOT)
    monkeypatch.setattr(commands.sys, "argv", ["study", *arguments])
    commands.main()
    return capsys.readouterr().out


def forget(raw, name, monkeypatch, capsys):
    monkeypatch.setattr(commands, "_configuration", lambda overlays: raw)
    return asked(monkeypatch, capsys, "forget", name)


def test_forgetting_deletes_records_and_blocks_and_names_who_shares_them(raw, monkeypatch, capsys):
    plan = planned(raw)
    measure(plan, "A7", "A9", "F1", "K4")
    join(plan, "A7", "A9", "F1")
    forget(raw, "A7", monkeypatch, capsys)
    assert state(Plan(raw, ROOT), "A7")[0] == "never run"
    assert all(job.done for job in plan.row("A9").jobs[0].inputs.values())
    assert "measures F1, K4 again" in forget(raw, "F1", monkeypatch, capsys)
    assert not any(job.path.exists() for job in plan.row("K4").jobs[0].inputs.values())


def test_blocks_that_are_shared_under_another_record_are_named(raw, monkeypatch, capsys):
    raw["dynatree"]["ablations"]["K4"]["budget"] = {"prompts": 1}
    plan = planned(raw)
    assert plan.row("K4").jobs[0].digest != plan.row("F1").jobs[0].digest
    measure(plan, "F1")
    join(plan, "F1", "K4")
    said = forget(raw, "F1", monkeypatch, capsys)
    assert "measures F1 again" in said
    assert "K4 had blocks in common with it; a record of it that is there stays" in said
    assert plan.row("K4").jobs[0].path.exists()


def test_an_experiment_without_results_cannot_be_forgotten(raw, monkeypatch, capsys):
    monkeypatch.setattr(
        commands, "one_line_errors", lambda path: pytest.raises(UserError, match="nothing to")
    )
    forget(raw, "A7", monkeypatch, capsys)


def test_pruning_keeps_what_a_plan_names_and_the_panels_that_measured_it(raw):
    plan = planned(raw)
    old = planned(raw, sdtp={"ablations": {"A7": {"change": {"schedule": {"keep_ratio": 0.55}}}}})
    files = {}
    for each in (plan, old):
        (panel,) = (panel for panel in each.panels(each.asked(["A7"]), {}) if panel.stage.has_blocks)
        panel.write()
        files[each] = {panel.path, panel.receipt, Path(f"logs/evaluate_sdtp/{panel.digest}.log")}
        for path in files[each] - {panel.path}:
            write(path)
        measure(each, "A7", "A9")
        join(each, "A7", "A9")
    damaged = Path("results/panel/0123456789abcdef.json")
    write(damaged)
    text = plan.row("A9").jobs[0].inputs["text"]
    temporary = text.path / ".0-2.json.abc.tmp"
    write(temporary)
    paths = {*unneeded([plan])}
    former = old.row("A7").jobs[0]
    assert {former.path, *(job.path for job in former.inputs.values())} <= paths
    assert {damaged, temporary, *files[old]} <= paths
    assert not paths & (files[plan] | {job.path for job in plan.jobs.values()})
    # Nothing in a folder that goes as a whole.
    assert not any(path.parent in paths for path in paths)


def test_pruning_names_a_shipped_study_whose_files_nobody_fetched(monkeypatch, capsys):
    write(Path("workflow/studies/whole.yaml"), "study: whole\nseed: 1\n")
    gone = {
        "texts": {"mine": {"source": "local", "path": "gone.jsonl"}},
        "dynatree": {"prompts": {"chat": {"text": "mine"}}},
    }
    write(Path("workflow/studies/gone.yaml"), yaml.safe_dump(gone))
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    kept = [Plan(raw | changes, ROOT).row("A7").jobs[0].path for changes in ({}, {"seed": 1})]
    other = Path("results/record/0123456789abcdef.json")
    for path in (*kept, other):
        write(path)
    said = asked(monkeypatch, capsys, "prune", "--yes").splitlines()
    assert said[0].startswith(
        "workflow/studies/gone.yaml cannot be planned here, and none of its results is needed: texts.mine."
    )
    assert said[-1].startswith("deleted 1 files and folders")
    assert all(path.exists() for path in kept)
    assert not other.exists()


def test_a_decoding_experiment_from_nothing_to_a_record(raw):
    """Of F4 six prompts are timed, nine replayed; costs are no blocks."""
    plan = planned(raw)
    assert state(plan, "F4") == ("never run", "")
    (record,) = plan.row("F4").jobs
    write(record.inputs["code"].path / "0-2.json")
    # One block of each kind is timed, two are replayed.
    assert state(plan, "F4") == ("unfinished", "8 of 9 blocks are missing")
    measure(plan, "F4")
    assert state(plan, "F4") == ("unfinished", "all of its blocks are there; its record is to be joined")
    join(plan, "F4")
    assert state(plan, "F4") == ("fresh", "")
    more = planned(raw, dynatree={"prompts": {"code": {"count": 4}}})
    assert state(more, "F4") == ("unfinished", "1 of 10 blocks are missing")
    timed = planned(raw, dynatree={"decoding": {"timed": 3}})
    assert state(timed, "F4") == ("unfinished", "3 of 12 blocks are missing")
    other = planned(raw, dynatree={"drafters": {"hybrid": {"share": 0.6}}})
    assert state(other, "F4")[0] == "stale"
    assert state(other, "F4")[1].startswith("spec drafter.share ")


def test_other_costs_lack_no_blocks_and_a_record(raw):
    plan = planned(raw)
    measure(plan, "F4", "O1")
    join(plan, "F4", "O1")
    dearer = planned(raw, dynatree={"calibration": {"repeats": 3}})
    assert state(dearer, "F4")[0] == "unfinished"
    # Its trees are grown by them.
    assert state(dearer, "O1") == (
        "stale",
        "input costs: input target: spec repeats 2 -> 3; 9 of 9 blocks are missing",
    )


def test_an_experiment_is_shown_with_its_blocks_and_what_they_and_its_record_read(raw, monkeypatch, capsys):
    plan = planned(raw)
    (record,) = plan.row("F4").jobs
    write(record.inputs["costs"].path)
    write(record.inputs["replayed_code"].path / "0-2.json")
    monkeypatch.setattr(commands, "_configuration", lambda overlays: raw)
    said = [line.split() for line in asked(monkeypatch, capsys, "show", "F4").splitlines()]
    blocks_of = {words[1]: " ".join(words[3:]) for words in said if words[0] == "blocks"}
    timed, replayed = "(0 there, 1 missing)", "(0 there, 2 missing)"
    assert blocks_of == {
        "code:": timed, "documentation:": timed, "chat:": timed, "replayed_code:": "(1 there, 1 missing)",
        "replayed_documentation:": replayed, "replayed_chat:": replayed,
    }  # fmt: skip
    reads = {words[1]: " ".join(words[3:]) for words in said if words[0] == "input"}
    assert reads == dict.fromkeys(
        [
            *("model:", "humaneval:", "python:", "chat:", "ngram:", "distilled:"),
            *("ngram_acceptance:", "distilled_acceptance:"),
        ],
        "(missing)",
    ) | {"costs:": "(exists)"}


def test_an_experiment_is_forgotten_and_its_costs_stay(raw, monkeypatch, capsys):
    plan = planned(raw)
    measure(plan, "F4")
    join(plan, "F4")
    (record,) = plan.row("F4").jobs
    write(record.inputs["costs"].path)
    said = forget(raw, "F4", monkeypatch, capsys)
    assert state(Plan(raw, ROOT), "F4")[0] == "never run"
    assert record.inputs["costs"].path.exists()
    # Six folders and a record.
    assert said.count("deleted ") == 7
