"""Panels: what lacks something is measured side by side, once, and by what it lacks."""

import copy
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.core.errors import UserError
from ablations.core.panel import read_panel
from ablations.study.planning import digests
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def raw():
    """The tiny study, with room for two blocks of documents."""
    found: dict = {}
    for name in ("config.yaml", "workflow/studies/tiny.yaml"):
        update_config(found, yaml.safe_load((ROOT / name).read_text()))
    found["panel"] = {"documents": 4}
    return found


def panels(plan, *names):
    """Panels of the experiments of these names, or of the whole study, by rule."""
    found = {}
    for panel in plan.panels(plan.asked(names), {}):
        found.setdefault(panel.stage.rule, []).append(panel)
    return found


def spans(plan, *names):
    """Missing spans by rule, experiment and measure."""
    found: dict = {}
    for rule, of_rule in panels(plan, *names).items():
        for panel in of_rule:
            for job, entry in zip(panel.jobs, panel.file.entries, strict=True):
                if entry.spans:
                    kind = getattr(job.spec, "measure", None) or job.spec.prompts.kind
                    found[rule, entry.label, kind] = found.get((rule, entry.label, kind), ()) + entry.spans
    return found


def measure(plan):
    """Pretend that all was done."""
    for job in plan.jobs.values():
        done = [f"{first}-{end}.json" for first, end in job.missing(4)] if job.stage.has_blocks else [""]
        for path in (job.path / name for name in done):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")


def changed(raw, **sections):
    copied = copy.deepcopy(raw)
    update_config(copied, sections)
    return Plan(copied, ROOT)


def test_every_experiment_of_a_kind_shares_a_process(raw):
    plan = Plan(raw, ROOT)
    found = panels(plan)
    assert {rule: len(of_rule) for rule, of_rule in found.items()} == {
        "train_pruner": 1,
        "evaluate_sdtp": 1,
        "evaluate_pipeline": 1,
        "sweep": 1,
        "calibrate_drafter": 1,
        "calibrate_costs": 1,
        "decode": 1,
        "replay": 1,
        "grid": 1,
    }
    (panel,) = found["evaluate_sdtp"]
    assert {job.digest for job in panel.jobs} == {job.digest for job in plan.jobs_of(panel.stage)}
    assert len({entry.digest for entry in panel.file.entries}) == len(panel.file.entries)
    assert spans(plan)["evaluate_sdtp", "A7", "text"] == ((0, 4), (4, 6))
    assert spans(plan)["evaluate_sdtp", "A7", "prefill"] == ((0, 2),)


def test_trainings_that_share_a_model_are_one_panel(raw):
    plan = Plan(raw, ROOT)
    (panel,) = panels(plan)["train_pruner"]
    assert [job.digest for job in panel.jobs] == [job.digest for job in plan.jobs_of(panel.stage)]
    assert len(panel.jobs) > 1
    assert all(
        entry.out == str(job.path) and not entry.spans
        for job, entry in zip(panel.jobs, panel.file.entries, strict=True)
    )


def test_what_is_done_is_in_no_panel(raw):
    measure(Plan(raw, ROOT))
    assert panels(Plan(raw, ROOT)) == {}


def test_more_documents_are_new_blocks_alone_and_fewer_are_none(raw):
    measure(Plan(raw, ROOT))
    more = changed(raw, sdtp={"evaluation": {"documents": 9}})
    found = spans(more)
    # Those of an exploratory experiment are as many as before.
    assert {label for _, label, _ in found} == {"baseline", *raw["paper"]["confirmatory"]["sdtp"]}
    assert {(rule, kind) for rule, _, kind in found} == {("evaluate_sdtp", "text")}
    # Two scorers have two training seeds.
    assert {label: spans.count((6, 8)) for (_, label, _), spans in found.items()} == {
        "baseline": 2, "A5": 2, "A2": 1, "A7": 1, "B1m": 1,
    }  # fmt: skip
    assert {span for spans in found.values() for span in spans} == {(6, 8), (8, 9)}
    fewer = changed(raw, sdtp={"evaluation": {"documents": 5}})
    assert panels(fewer) == {}
    assert not fewer.row("A7").jobs[0].done


def test_what_becomes_confirmatory_lacks_the_rest_of_its_budget_alone(raw):
    measure(Plan(raw, ROOT))
    found = spans(changed(raw, paper={"confirmatory": {"sdtp": ["A2", "A3b", "A5", "A9", "B1m"]}}))
    assert found == {
        ("evaluate_sdtp", "A9", "text"): ((4, 6),),
        ("evaluate_sdtp", "A9", "retrieval"): ((3, 4),),
        ("evaluate_sdtp", "A3b", "text"): ((4, 6), (0, 4), (4, 6)),
        ("evaluate_sdtp", "A3b", "retrieval"): ((3, 4), (0, 4)),
    }


def test_drafters_are_calibrated_side_by_side_and_named_by_who_needs_them_first(raw):
    of_rule = panels(Plan(raw, ROOT))
    for rule, labels in (
        # The two sources of the hybrid drafter, the draft model, the lookup.
        ("calibrate_drafter", ["F2", "F2", "N0", "PL"]),
        ("calibrate_costs", ["F2", "N0", "N1", "NG", "PL"]),
    ):
        (panel,) = of_rule[rule]
        assert sorted(entry.label for entry in panel.file.entries) == labels
        assert all(entry.out.endswith("manifest.json") and not entry.spans for entry in panel.file.entries)


def test_one_more_prompt_is_replayed_by_every_arm_that_drafts_and_timed_by_none(raw):
    measure(Plan(raw, ROOT))
    found = spans(changed(raw, dynatree={"prompts": {"code": {"count": 4}}}))
    assert {(rule, kind) for rule, _, kind in found} == {("replay", "code")}
    assert {*found.values()} == {((3, 4),)}
    drafting = {*raw["dynatree"]["ablations"]} - {"F1", "K4"}
    # K2 is F3.
    assert {label for _, label, _ in found} == drafting - {"K2"}


def test_one_more_timed_prompt_is_timed_by_what_has_the_whole_budget(raw):
    measure(Plan(raw, ROOT))
    found = spans(changed(raw, dynatree={"decoding": {"timed": 3}}))
    assert {(rule, kind) for rule, _, kind in found} == {
        ("decode", kind) for kind in ("code", "documentation", "chat")
    }
    assert {*found.values()} == {((2, 3),)}
    # Confirmatory are F2, F4 and K3; they are compared with F1, F2b and F3, whose budget is two prompts.
    assert {label for _, label, _ in found} == {"F1", "F2", "F2b", "F4", "K3"}


def test_fewer_prompts_measure_nothing(raw):
    measure(Plan(raw, ROOT))
    fewer = changed(
        raw, dynatree={"decoding": {"timed": 1, "exploratory": 1}, "prompts": {"code": {"count": 2}}}
    )
    assert panels(fewer).keys() == {"grid"}
    assert not fewer.row("F4").jobs[0].done


def test_without_replays_the_timed_prompts_are_kept_and_the_others_timed(raw):
    measure(Plan(raw, ROOT))
    found = spans(changed(raw, dynatree={"decoding": {"timed": None, "exploratory": None}}))
    assert {rule for rule, _, _ in found} == {"decode"}
    assert {*found.values()} == {((2, 3),)}
    assert {label for _, label, _ in found} == {*raw["dynatree"]["ablations"]} - {"K2", "K4", "F3", "N2"}


def test_an_arm_that_is_changed_is_measured_alone(raw):
    measure(Plan(raw, ROOT))
    found = spans(changed(raw, sdtp={"ablations": {"A7": {"change": {"schedule": {"keep_ratio": 0.55}}}}}))
    assert found == {
        ("evaluate_sdtp", "A7", "text"): ((0, 4), (4, 6)),
        ("evaluate_sdtp", "A7", "retrieval"): ((0, 4),),
        ("evaluate_sdtp", "A7", "prefill"): ((0, 2),),
    }


@pytest.mark.parametrize("settings", [{"documents": 1}, {"documents": 7, "experiments": 2}])
def test_how_processes_are_shared_measures_nothing_again(raw, settings):
    plan = Plan(raw, ROOT)
    measure(plan)
    other = changed(raw, panel=settings)
    assert other.jobs.keys() == plan.jobs.keys()
    assert panels(other) == {}


@pytest.mark.parametrize("most", [1, 3, 100])
def test_experiments_are_dealt_out_to_processes(raw, most):
    of_rule = panels(changed(raw, panel={"experiments": most}))["evaluate_sdtp"]
    labels = [{entry.label for entry in panel.file.entries} for panel in of_rule]
    assert all(1 <= len(names) <= most for names in labels)
    # An experiment is in one of them, with all of its measures.
    assert sum(map(len, labels)) == len(set().union(*labels))
    together = panels(Plan(raw, ROOT))["evaluate_sdtp"][0].file.entries
    dealt = [entry for panel in of_rule for entry in panel.file.entries]
    assert sorted(dealt, key=str) == sorted(together, key=str)


def test_ids_plan_what_they_need(raw):
    plan = Plan(raw, ROOT)
    found = spans(plan, "A7", "F4")
    assert {label for _, label, _ in found} == {"A7", "F4"}
    trained = panels(plan, "A7", "F4")["train_pruner"]
    assert [job.digest for panel in trained for job in panel.jobs] == [
        plan.row("A7").jobs[0].inputs["text"].inputs["pruner"].digest
    ]
    assert "sweep" not in panels(plan, "A7", "F4")
    # Another target needs what the paper needs.
    assert panels(plan, "paper/ablation.tex").keys() == panels(plan).keys()


def test_ranks_and_ways_to_compute_are_processes_of_their_own(raw):
    update_config(raw["sdtp"]["ablations"], {"G0": {"change": {"pipeline": {"ranks": 3}}}})
    of_rule = panels(Plan(raw, ROOT))["evaluate_pipeline"]
    assert {job.spec.pipeline.ranks for panel in of_rule for job in panel.jobs} == {2, 3}
    assert all(len({job.spec.pipeline.ranks for job in panel.jobs}) == 1 for panel in of_rule)


def test_a_panel_is_found_again_from_its_file_while_the_code_is_the_same(raw, monkeypatch):
    plan = Plan(raw, ROOT)
    (panel,) = panels(plan)["decode"]
    with pytest.raises(UserError, match="no such panel"):
        plan.panel(panel.digest)
    panel.write()
    assert read_panel(panel.path) == panel.file
    again = Plan(raw, ROOT).panel(panel.digest)
    assert (again.digest, again.stage, again.receipt) == (panel.digest, panel.stage, panel.receipt)
    assert [job.digest for job in again.jobs] == [job.digest for job in panel.jobs]
    source = digests.module_source
    edited = "ablations.dynatree.verify"
    monkeypatch.setattr(
        digests, "module_source", lambda name: source(name) + "\nEDITED = 1\n" * (name == edited)
    )
    with pytest.raises(UserError, match="changed while this panel waited"):
        Plan(raw, ROOT).panel(panel.digest)


def test_a_panel_says_whose_blocks_it_measures(raw):
    plan = Plan(raw, ROOT)
    (panel,) = panels(plan, "A7", "A9")["evaluate_sdtp"]
    assert panel.what == "7 blocks side by side: A7 (4), A9 (3)"
    assert plan.panels(plan.asked(["A7", "A9"]), {})[-1].digest == panel.digest
