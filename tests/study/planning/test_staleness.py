"""Digests change when what they stand for changes, and only then. Series are what is measured."""

import copy
import os
from pathlib import Path

import pytest
import yaml

from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import JOIN
from ablations.study.status import remaining_work, statuses

ROOT = Path(__file__).parents[3]

MEASURES = ("prefill", "retrieval", "text")

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def raw():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def stale(raw, mutate):
    """What a change of the configuration makes new: rules, of series with label and measure; no records."""
    before = Plan(copy.deepcopy(raw), ROOT)
    changed = copy.deepcopy(raw)
    mutate(changed)
    after = Plan(changed, ROOT)
    return sorted(
        f"{job.stage.rule}:{after.label(digest)}" + f":{getattr(job.spec, 'measure', '')}".rstrip(":")
        if job.stage.has_blocks
        else job.stage.rule
        for digest, job in after.jobs.items()
        if digest not in before.jobs and job.stage is not JOIN
    )


def measured(*names):
    """Series of SDTP experiments under every measure."""
    return [f"evaluate_sdtp:{name}:{measure}" for name in names for measure in MEASURES]


def decoded(names, rule="decode"):
    """Series of decoding experiments, one for each kind of prompts."""
    return sorted(f"{rule}:{name}" for name in names for kind in ("code", "documentation", "chat"))


def replayed(names):
    """Series of replays, one for each kind of prompts."""
    return decoded(names, "replay")


HYBRID = ("D1", "E1", "E2", "E3", "F2", "F2b", "F2c", "F3", "F4", "K3", "O1")
DISTILLED = ("N1", "N2", "N3", "N4")
DRAFTING = (*HYBRID, *DISTILLED, "NG", "PL")
DRAFTERS = ("hybrid", "distilled", "ngram", "lookup")


def test_a_keep_ratio_reruns_its_own_evaluation_alone(raw):
    def mutate(config):
        config["sdtp"]["ablations"]["A7"]["change"]["schedule"]["keep_ratio"] = 0.55

    assert stale(raw, mutate) == measured("A7")


def test_how_often_prefill_is_timed_reruns_prefill_alone(raw):
    def mutate(config):
        config["sdtp"]["evaluation"]["timing"]["repeats"] = 3

    found = stale(raw, mutate)
    assert "evaluate_sdtp:baseline:prefill" in found
    assert all(name.endswith(":prefill") for name in found)


def test_counts_are_in_no_series(raw):
    def mutate(config):
        config["sdtp"]["evaluation"]["documents"] = 120
        config["sdtp"]["evaluation"]["timing"]["documents"] = 9
        config["sdtp"]["evaluation"]["retrieval"]["count"] = 80
        config["sdtp"]["evaluation"]["exploratory"] = {"documents": 9, "prompts": 9}
        config["dynatree"]["prompts"]["code"]["count"] = 25
        config["dynatree"]["decoding"] |= {"timed": 9, "exploratory": 3}
        # The benchmark has a count of its own.

    assert stale(raw, mutate) == []


def test_wording_reruns_no_experiment(raw):
    def mutate(config):
        ablation = config["sdtp"]["ablations"]["A7"]
        ablation["title"] = ablation["hypothesis"] = ablation["section"] = "other"
        ablation["expect"] = {"quality": "up"}
        config["models"]["smollm2"]["description"] = "another name"
        config["texts"]["python"]["description"] = "another name"
        config["paper"] |= {"thresholds": {"text_same": 0.5}, "looks": []}
        config["resources"] = {"gpu": 3}
        config["panel"] = {"documents": 3, "experiments": 1}

    assert stale(raw, mutate) == []


def test_what_leaves_the_family_is_measured_no_more_and_keeps_its_results(raw):
    def mutate(config):
        config["paper"]["confirmatory"] = {"sdtp": ["A2"], "dynatree": ["F4"]}

    assert stale(raw, mutate) == []


def test_renaming_an_experiment_reruns_nothing(raw):
    def mutate(config):
        ablations = config["sdtp"]["ablations"]
        ablations["Seven"] = ablations.pop("A7")
        config["paper"] |= {"main": [], "confirmatory": {"sdtp": ["Seven", "A2", "A3", "A4", "A5"]}}

    assert stale(raw, mutate) == []


def test_a_loss_weight_reruns_training_and_evaluation(raw):
    def mutate(config):
        config["sdtp"]["ablations"]["A5"]["change"]["losses"]["ranking"] = 0.5

    seeds, measures = len(raw["sdtp"]["seeds"]), ("retrieval", "text")
    found = [f"evaluate_sdtp:A5:{measure}" for measure in measures for _ in range(seeds)]
    assert stale(raw, mutate) == [*found, *seeds * ["train_pruner"]]


def test_a_shared_budget_reruns_its_users(raw):
    def mutate(config):
        config["dynatree"]["decoding"]["new_tokens"] = 32

    # The benchmark and the calibration have a length of their own.
    assert stale(raw, mutate) == [*decoded(["F1", *DRAFTING]), *replayed(DRAFTING)]


def test_how_often_decoding_is_timed_replays_nothing(raw):
    def mutate(config):
        config["dynatree"]["decoding"]["repeats"] = 3

    assert stale(raw, mutate) == decoded(["F1", *DRAFTING])


def test_training_of_a_draft_reruns_its_users(raw):
    def mutate(config):
        config["dynatree"]["drafters"]["distilled"]["distil"]["seed"] = 3

    # The hybrid draft of the baseline is one.
    labels = [*HYBRID, *DISTILLED]
    assert stale(raw, mutate) == [
        "benchmark",
        *("calibrate_costs" for _ in ("hybrid", "distilled")),
        "calibrate_drafter",
        *decoded(labels),
        "distil",
        *replayed(labels),
    ]


def test_a_drafter_that_states_other_probabilities_is_calibrated_again(raw):
    def mutate(config):
        config["dynatree"]["drafters"]["lookup"]["probability"] = 0.8

    assert stale(raw, mutate) == [
        "benchmark", "calibrate_costs", "calibrate_drafter", *decoded(["PL"]), *replayed(["PL"])
    ]  # fmt: skip


def test_the_weights_of_a_mixture_change_no_calibration_of_what_it_mixes(raw):
    def mutate(config):
        config["dynatree"]["drafters"]["hybrid"]["share"] = 0.6

    assert stale(raw, mutate) == ["benchmark", "calibrate_costs", *decoded(HYBRID), *replayed(HYBRID)]


@pytest.mark.parametrize(
    ("key", "value", "target"),
    [
        ("repeats", 5, ["calibrate_target"]),
        ("most_rows", 129, ["calibrate_target"]),
        ("prefixes", [64, 512], ["calibrate_target"]),
        ("timed", 3, []),
        ("pruning", {"tau": 0.1}, []),
    ],
)
def test_other_costs_measure_only_what_they_decide(raw, key, value, target):
    """Cost-aware trees are grown by them; all others are priced by them, which measures nothing."""

    def mutate(config):
        config["dynatree"]["calibration"][key] = value

    costs = ["calibrate_costs" for _ in DRAFTERS]
    assert stale(raw, mutate) == ["benchmark", *costs, *target, *decoded(["O1"]), *replayed(["O1"])]


@pytest.mark.parametrize(
    ("key", "value", "target"),
    [
        ("max_nodes", 32, []),
        ("shape", {"depth": 9, "branching": 3}, []),
        ("new_tokens", 64, []),
        (
            "prompts",
            {"chat": {"text": "chat_validation", "split": "validation", "count": 6}},
            ["calibrate_target"],
        ),
    ],
)
def test_what_acceptance_is_counted_on_reruns_all_that_drafts(raw, key, value, target):
    def mutate(config):
        config["dynatree"]["calibration"][key] = value

    # The hybrid drafter has the calibrations of both its sources.
    found = ["calibrate_costs" for _ in DRAFTERS] + ["calibrate_drafter"] * (len(DRAFTERS) - 1) + target
    assert stale(raw, mutate) == ["benchmark", *found, *decoded(DRAFTING), *replayed(DRAFTING)]


def test_a_changed_torch_pin_makes_every_model_job_stale_and_a_seaborn_pin_none(raw, tmp_path):
    constraints = (ROOT / "constraints.txt").read_text()

    def digests(text):
        (tmp_path / "constraints.txt").write_text(text)
        return {job.digest: job.stage.rule for job in Plan(raw, tmp_path).jobs.values()}

    before = digests(constraints)
    assert digests(constraints.replace("seaborn==", "seaborn==9.")) == before
    fresh = {
        rule
        for digest, rule in digests(constraints.replace("torch==", "torch==9.")).items()
        if digest in before
    }
    # Records are joined without torch, from series that it measured.
    assert fresh <= {"prepare_text"}


def test_user_texts_are_known_by_their_bytes(raw, tmp_path):
    (tmp_path / "constraints.txt").write_text((ROOT / "constraints.txt").read_text())
    text = tmp_path / "mine.txt"
    text.write_text("one")
    raw["texts"]["mine"] = {"source": "local", "path": "mine.txt"}
    raw["dynatree"]["prompts"]["documentation"]["text"] = "mine"

    def digest():
        return Plan(raw, tmp_path).row("F1").jobs[0].digest

    first = digest()
    text.write_text("two")
    assert digest() != first
    text.write_text("one")
    assert digest() == first


def text_of(plan):
    return plan.row("baseline").jobs[0].inputs["text"].inputs["text"].digest


def test_an_edit_behind_a_link_and_a_link_to_another_file_make_stale(raw, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name[:1] * 9)
        # Of one size and time, by which the cache of hashes knows a file.
        os.utime(tmp_path / name / "a.txt", (1, 1))
    raw["texts"]["mine"] = {"source": "local", "path": str(folder)}
    raw["sdtp"]["text"] = "mine"
    digests = []
    for target in ("one", "two"):
        (folder / "linked").unlink(missing_ok=True)
        (folder / "linked").symlink_to(tmp_path / target)
        plan = Plan(raw, ROOT)
        digests.append(text_of(plan))
        # The next plan knows the hashes of the files that were read.
        plan.sources.hashes.save()
    (tmp_path / "two/a.txt").write_text("edited")
    digests.append(text_of(Plan(raw, ROOT)))
    assert len({*digests}) == 3


def test_whoever_only_looks_writes_nothing(raw):
    before = sorted(Path().rglob("*"))
    plan = Plan(raw, ROOT)
    statuses(plan)
    remaining_work(plan)
    plan.panels(plan.paper_results, {})
    assert sorted(Path().rglob("*")) == before
