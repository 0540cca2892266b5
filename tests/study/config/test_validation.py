"""Every mistake in a configuration is one line that names its key."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.core.errors import UserError
from ablations.specs.sdtp.counts import stage_counts
from ablations.study.config.reading import require_distinct_keys
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]

GRIDS = {"linear": [8], "depths": [3], "branchings": [2], "taus": [0.1], "new_tokens": 32, "lengths": [32]}

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def raw():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def problem(raw, *path, **changes):
    """The error after setting keys of the map at `path`."""
    broken = copy.deepcopy(raw)
    place = broken
    for key in path:
        place = place.setdefault(key, {})
    place.update(changes)
    with pytest.raises(UserError) as caught:
        Plan(broken, ROOT)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_grids_replay_the_full_methods_drafter_at_the_costs_that_its_rows_have(raw):
    raw["dynatree"]["grids"] = GRIDS
    trees, lengths = Plan(raw, ROOT).grids.values()
    assert [(tree.shape.method, tree.shape.depth) for tree in trees.spec.trees] == [
        ("linear", 8),
        ("tree", 3),
    ]
    assert [(tree.shape.depth, tree.pruning.tau) for tree in lengths.spec.trees] == [(7, 0.05), (7, None)]
    assert {tree.pruning.max_nodes for tree in trees.spec.trees} == {128}
    # The baseline's tree is replayed as it is.
    assert {tree.pruning.max_nodes for tree in lengths.spec.trees} == {256}
    (record,) = Plan(raw, ROOT).row("F4").jobs
    assert {grid.inputs["costs"].digest for grid in (trees, lengths)} == {record.inputs["costs"].digest}
    assert trees.spec.calibrated and lengths.spec.calibrated
    raw["dynatree"]["baseline"]["drafter"] = None
    assert "dynatree.grids: the baseline has no drafter" in problem(raw)


def test_specs_of_cost_aware_trees_say_how_large_they_become(raw):
    plan = Plan(raw, ROOT)
    (record,) = plan.row("O1").jobs
    calibrated = raw["dynatree"]["calibration"]["max_nodes"]
    assert record.spec.pruning.max_nodes == calibrated
    # Three kinds of prompts, timed and replayed.
    assert len(record.series) == 6
    for job in record.series.values():
        assert job.spec.pruning.max_nodes == job.inputs["costs"].spec.max_nodes == calibrated
        assert job.inputs["costs"].digest == record.inputs["costs"].digest
    raw["dynatree"]["ablations"]["O1"]["change"]["shape"]["depth"] = calibrated + 1
    assert problem(raw) == (
        f"dynatree.calibration.max_nodes: {calibrated} nodes cannot hold a path of depth {calibrated + 1},"
        " which dynatree.ablations.O1 drafts; raise it or lower the depth"
    )


def test_the_default_study_is_valid_and_shares_records(raw):
    plan = Plan(raw, ROOT)
    assert plan.row("K2").jobs[0].digest == plan.row("F3").jobs[0].digest
    # F1, which F2 is compared with, is timed on more prompts: K4 has the first blocks of the same series.
    first, second = (plan.row(name).jobs[0] for name in ("F1", "K4"))
    assert first.digest != second.digest
    assert {job.digest for job in first.inputs.values()} == {job.digest for job in second.inputs.values()}
    assert plan.row("A7").jobs[0].digest != plan.row("baseline").jobs[0].digest


def test_drafters_are_shared(raw):
    plan = Plan(raw, ROOT)

    def made(name, artefact):
        return {job.inputs[artefact].digest for job in plan.row(name).jobs[0].series.values()}

    assert len(made("N1", "distilled") | made("N4", "distilled") | made("F4", "distilled")) == 1
    assert made("NG", "ngram") == made("F4", "ngram")


@pytest.mark.parametrize(
    ("path", "changes", "expected"),
    [
        ((), {"modles": {}}, "modles: unknown key; did you mean 'models'?"),
        (("sdtp",), {"basline": {}}, "sdtp.basline: unknown key; did you mean 'baseline'?"),
        (
            ("sdtp", "ablations", "A7", "change", "schedule"),
            {"keep_ration": 0.5},
            "sdtp.ablations.A7.change.schedule.keep_ration: unknown key; did you mean 'keep_ratio'?",
        ),
        (("models", "smollm2"), {"layrs": 3}, "models.smollm2.layrs: unknown key; did you mean 'layers'?"),
        (
            ("dynatree", "drafters", "ngram"),
            {"ordr": 3},
            "dynatree.drafters.ngram.ordr: unknown key; did you mean 'order'?",
        ),
        (("sdtp", "evaluation", "timing"), {"repeat": 3}, "sdtp.evaluation.timing.repeat: unknown key"),
        (("dynatree", "prompts", "code"), {"cuont": 3}, "dynatree.prompts.code.cuont: unknown key"),
        (("sdtp", "evaluation"), {"shards": 2}, "sdtp.evaluation.shards: unknown key"),
        (("panel",), {"document": 2}, "panel.document: unknown key; did you mean 'documents'?"),
        (("paper",), {"headings": "x"}, "paper.headings: unknown key; did you mean 'heading'?"),
    ],
)
def test_unknown_keys_are_named_at_every_level(raw, path, changes, expected):
    assert problem(raw, *path, **changes).startswith(expected)


@pytest.mark.parametrize(
    ("path", "changes", "expected"),
    [
        (
            ("sdtp", "ablations", "A2", "change"),
            {"importance": "randm"},
            "A2.change.importance: input should",
        ),
        (("models", "smollm2"), {"source": "whel"}, "models.smollm2: "),
        (
            ("models", "smollm2"),
            {"layers": 0},
            "smollm2.layers: input should be greater than 0 (got 0)",
        ),
        (
            ("sdtp", "ablations", "A7", "change", "schedule"),
            {"keep_ratio": 0},
            "sdtp.ablations.A7.change.schedule.keep_ratio: input should be greater than 0 (got 0)",
        ),
        (
            ("sdtp", "ablations", "A7", "change", "schedule"),
            {"keep_ratio": 1.5},
            "sdtp.ablations.A7.change.schedule.keep_ratio: input should be less than or equal to 1 (got 1.5)",
        ),
        (
            ("sdtp", "baseline", "schedule"),
            {"stages": 27},
            "schedule.stages: 27 stages from layer 4",
        ),
        (("sdtp", "baseline", "schedule"), {"layers": [4, 30]}, "schedule.layers: layer 30 is out of range"),
        (
            ("sdtp", "evaluation"),
            {"prompt_tokens": 20},
            "sdtp.baseline.preserve: keeps all 20 tokens of a prompt; protect less, or make prompts longer",
        ),
        (
            ("sdtp", "saliency"),
            {"tokens": 384},
            "sdtp.saliency.tokens: stage 9 of 10 has nothing to drop in training: it keeps all 20 that are"
            " left of a prompt of 320 tokens (tokens - continuation_tokens), 20 of them protected; raise",
        ),
        (
            ("sdtp", "saliency"),
            {"tokens": 64},
            "sdtp.saliency.tokens: 64 leave no prompt before continuation_tokens (64); raise it",
        ),
        (
            ("sdtp", "baseline", "preserve"),
            {"tail": 410},
            "sdtp.saliency.tokens: stage 2 of 10 has nothing to drop in training: it keeps all 414 that are",
        ),
        (("sdtp", "baseline", "preserve"), {"tail": 0.1}, "stage 8 of 10 has nothing to drop in training"),
        (("sdtp", "training"), {"keep_ratio": 1.0}, "stage 1 of 10 has nothing to drop in training"),
        (
            ("sdtp", "ablations", "A7", "change", "schedule"),
            {"trained_keep_ratio": 0.3},
            "sdtp.saliency.tokens: stage 4 of 10 has nothing to drop in training",
        ),
        (("sdtp", "baseline", "preserve"), {"tail": 1.5}, "sdtp.baseline.preserve.tail: input should be"),
        (("sdtp", "baseline", "preserve"), {"head": -1}, "sdtp.baseline.preserve.head: input should be"),
        (
            ("sdtp", "ablations", "A6", "change", "preserve"),
            {"head": 0.5, "tail": 0.5},
            "A6.change.preserve: keeps all 768 tokens of a prompt; protect less, or make prompts longer",
        ),
        (("sdtp", "evaluation", "timing"), {"documents": 99}, "sdtp.evaluation.timing.documents: 99 timed"),
        (
            ("sdtp", "evaluation", "compute"),
            {"dtype": "float16"},
            "sdtp.ablations.A1.change.importance: 'saliency' takes gradients, which underflow in float16",
        ),
        (
            ("sdtp", "training", "compute"),
            {"dtype": "float16"},
            "sdtp.training.compute.dtype: float16 gradients underflow; use bfloat16 or float32",
        ),
        (
            ("sdtp", "ablations", "A5", "change", "losses"),
            {"lm": 0},
            "sdtp.ablations.A5.change.losses: all weights are zero, so nothing would be trained; raise one",
        ),
        (("sdtp", "ablations", "A7", "expect"), {"quality": "worse"}, "sdtp.ablations.A7.expect.quality: "),
        (
            ("dynatree", "baseline", "pruning"),
            {"tau": 1.0},
            "dynatree.baseline.pruning.tau: input should be less than 1 (got 1.0)",
        ),
        (
            ("dynatree", "baseline", "pruning"),
            {"tau": 0},
            "dynatree.baseline.pruning.tau: input should be greater than 0 (got 0)",
        ),
        (
            ("dynatree", "baseline", "pruning"),
            {"max_nodes": 6},
            "dynatree.baseline.pruning.max_nodes: 6 nodes cannot hold a path of depth 7; raise it or lower",
        ),
        (
            ("dynatree", "decoding"),
            {"new_tokens": 0},
            "dynatree.decoding.new_tokens: input should be greater than 0 (got 0)",
        ),
        (
            ("dynatree", "decoding"),
            {"temperature": 0.7},
            "dynatree.decoding.temperature: sampling is not supported, decoding is greedy; leave it at 0",
        ),
        (
            ("dynatree", "ablations", "D1", "change"),
            {"schedule": {"keep_ratio": 0.5}},
            "dynatree.ablations.D1.change.schedule: this component is SDTP's; pruned prompts and drafted",
        ),
        (
            ("sdtp", "ablations", "A2", "change"),
            {"drafter": "ngram"},
            "sdtp.ablations.A2.change.drafter: this component is DynaTree's; pruned prompts and drafted",
        ),
        (
            ("dynatree", "benchmark"),
            {"best_of": ["F44"]},
            "dynatree.benchmark.best_of: 'F44' is not in dynatree.ablations; did you mean 'F4'?",
        ),
        (
            ("dynatree", "benchmark"),
            {"transformers": {"HF-lookup": {"method": "prompt_lookup"}}},
            "dynatree.benchmark: 'transformers': one entry needs 'method: generate'",
        ),
        (
            ("dynatree", "benchmark", "transformers"),
            {"F4": {"method": "prompt_lookup"}},
            "dynatree.benchmark.transformers.F4: this id is also in dynatree.ablations; choose another",
        ),
        (
            ("dynatree", "ablations", "D1", "change", "shape"),
            {"method": "linear"},
            "D1.change.shape.branching: a linear draft is one path; set it to 1",
        ),
        (
            ("dynatree", "ablations", "F1", "change"),
            {"drafter": "nope"},
            "F1.change.drafter: 'nope' is",
        ),
        (
            ("dynatree", "drafters", "hybrid"),
            {"distilled": "destilled"},
            "dynatree.drafters.hybrid.distilled: 'destilled' is not in dynatree.drafters of kind 'distilled';"
            " did you mean 'distilled'?",
        ),
        (
            ("dynatree", "drafters", "hybrid"),
            {"ngram": "lookup"},
            "dynatree.drafters.hybrid.ngram: 'lookup' is not in dynatree.drafters of kind 'ngram';"
            " allowed: ngram",
        ),
        (
            ("dynatree", "drafters", "lookup"),
            {"shortest": 9},
            "dynatree.drafters.lookup: 'shortest' must be at most 'longest'",
        ),
        (
            ("dynatree", "drafters", "distilled"),
            {"text": "pyton"},
            "dynatree.drafters.distilled.text: 'pyton' is not in texts; did you mean 'python'?",
        ),
        (
            ("dynatree", "drafters", "distilled"),
            {"teacher": {"question": 3}},
            "dynatree.drafters.distilled.teacher.question: unknown key; did you mean 'questions'?",
        ),
        (
            ("dynatree", "drafters", "distilled"),
            {"teacher": {"texts": 0, "questions": 0}},
            "dynatree.drafters.distilled.teacher.texts: the target has nothing to write; raise it or",
        ),
        (
            ("dynatree", "drafters", "distilled", "distil"),
            {"epochs": 1},
            "dynatree.drafters.distilled.text: missing; the draft is trained on it",
        ),
        (
            ("dynatree", "drafters", "distilled", "distil"),
            {"start": None},
            "dynatree.drafters.distilled.distil.epochs: 0 epochs train nothing",
        ),
        (
            ("dynatree", "drafters", "distilled", "distil"),
            {"start": "nowhere.safetensors"},
            "dynatree.drafters.distilled.distil.start: 'nowhere.safetensors' does not exist",
        ),
        (
            ("dynatree", "prompts", "chat"),
            {"tokens": 64},
            "dynatree.prompts.chat: a turn of a chat is taken whole",
        ),
        (
            ("dynatree",),
            {"grids": {**GRIDS, "max_nodes": 7}},
            "dynatree.grids.max_nodes: 7 nodes cannot hold a path of depth 8; raise it or lower the depth",
        ),
        (
            ("dynatree",),
            {"grids": {**GRIDS, "lengths": [64, 32]}},
            "dynatree.grids.lengths: numbers must rise",
        ),
        (
            ("dynatree", "decoding"),
            {"timed": 21},
            "dynatree.decoding.timed: 21 are more than prompts.code.count (20); lower it",
        ),
        (
            ("dynatree", "prompts", "chat"),
            {"count": 4},
            "dynatree.decoding.timed: 5 are more than prompts.chat.count (4); lower it",
        ),
        (
            ("dynatree", "decoding"),
            {"exploratory": 6},
            "dynatree.decoding.exploratory: 6 are more than timed (5); lower it",
        ),
        (
            ("dynatree", "decoding"),
            {"timed": None, "exploratory": 21},
            "dynatree.decoding.exploratory: 21 are more than prompts.code.count (20); lower it",
        ),
        (
            ("dynatree", "decoding"),
            {"timed": 0},
            "dynatree.decoding.timed: input should be greater than 0 (got 0)",
        ),
        (
            ("dynatree",),
            {"calibration": None},
            "dynatree.decoding.timed: calibrated costs are needed; add the key dynatree.calibration",
        ),
        (
            ("dynatree", "calibration"),
            {"prefixes": [256, 64]},
            "dynatree.calibration.prefixes: numbers must rise",
        ),
        (
            ("dynatree", "calibration"),
            {"max_nodes": 7},
            "dynatree.calibration.max_nodes: 7 nodes cannot hold a path of depth 8; raise it or lower",
        ),
        (
            ("dynatree", "calibration"),
            {"pruning": {"max_nodes": 7}},
            "dynatree.calibration.pruning.max_nodes: 7 nodes cannot hold a path of depth 8; raise it or",
        ),
        (
            ("dynatree", "calibration"),
            {"shape": {"method": "linear", "branching": 3}},
            "dynatree.calibration.shape.branching: a linear draft is one path; set it to 1",
        ),
        *(
            (
                ("dynatree", "prompts"),
                {name: {"text": "python", "count": 20}},
                f"dynatree.prompts.{name}: this name is a record's own; choose another",
            )
            for name in ("costs", "replayed_code", "replayed_x")
        ),
        (("dynatree", "ablations", "F2"), {"versus": "F9"}, "dynatree.ablations.F2.versus: 'F9' is not in"),
        (("dynatree", "prompts", "code"), {"text": "pyton"}, "did you mean 'python'?"),
        (("paper",), {"main": ["A77"]}, "paper.main: 'A77' is not in sdtp.ablations; did you mean 'A7'?"),
        (("sdtp",), {"only": ["A66"]}, "sdtp.only: 'A66' is not in sdtp.ablations"),
        (("sdtp",), {"model": "gpt"}, "sdtp.model: 'gpt' is not in models; allowed: smollm2"),
        (("sdtp", "ablations"), {"A7": None}, "sdtp.ablations.A7: "),
        ((), {"texts": None}, "texts: "),
    ],
)
def test_impossible_values_are_named(raw, path, changes, expected):
    assert expected in problem(raw, *path, **changes)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("A2", {"mask": "soft"}, "mask: 'soft' needs the keep logits of importance 'learned', not 'random'"),
        ("A2", {"selection": "top_p"}, "selection: 'top_p' needs the keep logits"),
        (
            "B1",
            {"schedule": {"layers": [4], "match": "count"}},
            "B1.change.schedule.match: 'count' needs the",
        ),
        (
            "B1",
            {"schedule": {"layers": [4], "match": "flops"}, "selection": "top_p"},
            "B1.change.schedule.match: needs selection 'top_k', propagation 'cascade' and mask 'hard'",
        ),
        ("C1", {"positions": "packed"}, "C1.change.positions: 'packed' renumbers survivors, but with mask"),
        ("C1", {"propagation": "local"}, "C1.change.propagation: 'local' needs mask 'hard'; use 'cascade'"),
        ("GB", {"mask": "soft"}, "GB.change.mask: 'soft' does not run over pipeline ranks; use hard, or set"),
        ("GB", {"pipeline": {"ranks": 1}}, "GB.change.pipeline.ranks: input should be greater than"),
    ],
)
def test_combinations_that_mean_nothing_are_named(raw, name, change, expected):
    ablation = raw["sdtp"]["ablations"][name]
    ablation["compound"] = True
    ablation["change"] = {**ablation["change"], **change}
    assert expected in problem(raw)


@pytest.mark.parametrize("measure", ["abs", "signed"])
def test_a_measure_that_vanishes_at_the_last_layer_is_refused_where_nothing_else_teaches(raw, measure):
    ablations = raw["sdtp"]["ablations"]
    expected = (
        f"saliency.measure: '{measure}' of the loss 'continuation' is 0 at the input of the last layer (29)"
    )
    ablations["A4"]["change"]["losses"] = {"lm": 0}
    for name in ("A1", "A1s", "A4"):
        broken = copy.deepcopy(raw)
        ablation = broken["sdtp"]["ablations"][name]
        ablation["compound"] = True
        ablation["change"]["saliency"] = {"measure": measure}
        assert f"sdtp.ablations.{name}.change.{expected}" in problem(broken)
        ablation["change"]["saliency"]["loss"] = "window"
        Plan(broken, ROOT)
        del ablation["change"]["saliency"]["loss"]
        ablation["change"]["schedule"] = {"layers": [4, 15, 26]}
        Plan(broken, ROOT)
    ablations["A3"] |= {
        "compound": True,
        "change": {"losses": {"ranking": 0}, "saliency": {"measure": measure}},
    }
    Plan(raw, ROOT)


def test_a_prompts_own_saliency_is_of_the_loss_that_the_target_names(raw):
    ablation = raw["sdtp"]["ablations"]["A1"]
    assert Plan(raw, ROOT).row("A1").jobs[0].spec.saliency.loss_tokens == 64
    ablation |= {"compound": True, "change": {"importance": "saliency", "saliency": {"loss": "window"}}}
    assert Plan(raw, ROOT).row("A1").jobs[0].spec.saliency.loss_tokens is None


def test_evaluation_may_saturate_and_shares_stay_shares(raw):
    """A8 leaves protected tokens alone on purpose; what is protected of a prompt is for the job to say."""
    raw["sdtp"]["baseline"]["preserve"] = {"head": 0.01, "tail": 0.01}
    spec = Plan(raw, ROOT).row("A8").jobs[0].spec
    protected = spec.preserve.of(768)
    assert (spec.preserve.tail, protected) == (0.01, (8, 8))
    assert stage_counts(768, spec.keep_ratios, protected.tokens)[-7:] == (16,) * 7


@pytest.mark.parametrize("name", [None, "tiny", "full", "paper-scale", "paper-scale-sdtp-llama2"])
def test_every_study_trains_every_stage(raw, name):
    """The check that refuses the others: each stage of each training drops a token that is not protected."""
    if name is not None:
        update_config(raw, yaml.safe_load((ROOT / f"workflow/studies/{name}.yaml").read_text()))
    jobs = Plan(raw, ROOT).paper_jobs.values()
    pruners = {job.inputs["pruner"].digest: job.inputs["pruner"] for job in jobs if "pruner" in job.inputs}
    assert pruners
    for job in pruners.values():
        windows = job.inputs["saliency"].spec
        prompt = windows.tokens - windows.continuation_tokens
        protected = job.spec.preserve.of(prompt).tokens
        counts = stage_counts(prompt, job.spec.keep_ratios, protected)
        assert all(before > after >= protected for before, after in pairwise((prompt, *counts)))
        assert counts[-2] > protected


def test_the_baseline_and_confirmatory_trainings_of_another_kind_have_every_seed(raw):
    raw["sdtp"]["seeds"] = [4, 1, 2]
    raw["paper"]["confirmatory"]["sdtp"] = ["A2", "A3", "A6", "A7"]
    plan = Plan(raw, ROOT)
    jobs = {row.experiment.id: row.jobs for row in plan.rows}
    seeds = {row.experiment.id: row.experiment.seeds for row in plan.rows}
    assert {name: seeds[name] for name in ("baseline", "A3", "A4", "A6", "A7", "C1", "GB")} == {
        "baseline": (4, 1, 2), "A3": (4, 1, 2), "A4": (4,), "A6": (4,), "A7": (4,), "C1": (4,), "GB": (4,),
    }  # fmt: skip
    # Nothing is trained for these, whatever a seed may draw.
    assert {name: seeds[name] for name in ("A1", "A1s", "A2", "M1", "F4")} == dict.fromkeys(
        ("A1", "A1s", "A2", "M1", "F4"), ()
    )
    assert [job.spec.seed for job in jobs["A2"]] == [4]
    assert all(len(jobs[name]) == max(1, len(seeds[name])) for name in jobs)
    assert [job.spec.timing is None for job in jobs["baseline"]] == [False, True, True]
    trained = [job.inputs["text"].inputs["pruner"].spec for job in jobs["A3"]]
    assert [(spec.seed, spec.losses.ranking) for spec in trained] == [(4, 0), (1, 0), (2, 0)]
    assert plan.row("A3").experiment.records == tuple(str(job.path) for job in jobs["A3"])


@pytest.mark.parametrize(
    "change", [{"saliency": {"loss": "window"}}, {"schedule": {"trained_keep_ratio": 0.8}}]
)
def test_whatever_trains_a_scorer_in_another_way_asks_for_every_seed(raw, change):
    raw["sdtp"]["ablations"]["A6"]["change"] = change
    assert len(Plan(raw, ROOT).row("A6").jobs) == len(raw["sdtp"]["seeds"])


def test_what_is_confirmatory_has_the_whole_budget_and_what_it_is_compared_with_too(raw):
    def budget(name):
        spec = Plan(raw, ROOT).row(name).jobs[0].spec
        return spec.windows.documents, spec.retrieval.count

    assert {name: budget(name) for name in ("baseline", "A7", "A8", "C1")} == {
        "baseline": (60, 40), "A7": (60, 40), "A8": (20, 20), "C1": (20, 20),
    }  # fmt: skip
    raw["sdtp"]["ablations"]["A7"]["versus"] = "A8"
    assert budget("A8") == (60, 40)
    raw["sdtp"]["evaluation"]["exploratory"] = None
    assert budget("C1") == (60, 40)


def test_only_what_runs_other_kernels_is_timed(raw):
    update_config(raw, yaml.safe_load((ROOT / "workflow/studies/full.yaml").read_text()))
    timed = {
        row.experiment.id: row.jobs[0].spec.timing is not None
        for row in Plan(raw, ROOT).rows
        if row.experiment.method == "sdtp"
    }
    cheap = {"A1s", "A2", "M1", "M2", "A3", "A3b", "A4", "A4b", "A5", "L1", "L2", "L3", "LD"}
    oracle = {"OR", "ORa", "ORs"}
    assert {name for name, is_timed in timed.items() if not is_timed} == cheap | oracle
    assert {"baseline", "A1", "AL", "AW", "A6", "A7", "R9", "R9t", "C1", "P1", "GB"} <= {*timed}
    raw["sdtp"]["baseline"]["importance"] = "attention_last"
    raw["sdtp"]["only"] = ["A2", "AL", "AW"]
    raw["paper"] |= {"confirmatory": {}}
    plan = Plan(raw, ROOT)
    assert [plan.row(name).jobs[0].spec.timing is None for name in ("baseline", "A2", "AL", "AW")] == [
        False, False, True, False,
    ]  # fmt: skip


def test_the_oracle_takes_the_gradient_of_what_follows(raw):
    raw["sdtp"]["ablations"]["A1"]["change"] = {"importance": "oracle", "saliency": {"measure": "abs"}}
    raw["sdtp"]["ablations"]["A1"]["compound"] = True
    spec = Plan(raw, ROOT).row("A1").jobs[0].spec
    assert (spec.saliency.measure, spec.saliency.loss_tokens, spec.timing) == ("abs", None, None)
    raw["sdtp"]["ablations"]["A1"]["change"]["schedule"] = {"layers": [29]}
    assert problem(raw).startswith(
        "sdtp.ablations.A1.change.saliency.measure: 'abs' of the loss 'continuation' is 0 at the input of the"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"confirmatory": {"sdtp": ["A77"]}},
            "paper.confirmatory.sdtp: 'A77' is not in sdtp.ablations; did you mean 'A7'?",
        ),
        (
            {"confirmatory": {"dynatree": ["A7"]}},
            "paper.confirmatory.dynatree: 'A7' is not in dynatree.ablations; allowed: F1, F2",
        ),
        (
            {"confirmatory": {"sdtp": ["A7", "B2"]}},
            "paper.confirmatory.sdtp: 'B2' predicts nothing that is measured (sdtp.ablations.B2.expect); say",
        ),
        ({"confirmatory": {"dynatree": ["F1"]}}, "paper.confirmatory.dynatree: 'F1' predicts nothing that"),
        ({"confirmatory": {"sdtp": ["A7", "A7"]}}, "paper.confirmatory.sdtp: 'A7' is there 2 times"),
        (
            {"looks": [{"documents": 60, "retrieval": 40, "alpha": 0.06}]},
            "paper.looks: their alpha is 0.06 together, more than paper.thresholds.alpha (0.05); lower one",
        ),
        (
            {"looks": [{"documents": 60, "retrieval": 40, "alpha": 0.01}] * 2},
            "paper.looks.1: no more documents or retrieval prompts than at the look before; sort them",
        ),
        (
            {
                "looks": [
                    {"documents": 60, "retrieval": 40, "alpha": 0.01},
                    {"documents": 80, "retrieval": 30, "alpha": 0.01},
                ]
            },
            "paper.looks.1: no more documents or retrieval prompts than at the look before; sort them",
        ),
        (
            {"looks": [{"documents": 50, "retrieval": 40, "alpha": 0.05}]},
            "sdtp.evaluation.documents: 60 documents and 40 retrieval prompts (retrieval.count) are none of"
            " paper.looks (50 and 40); take a look's, or, before measuring, declare other looks ([] for",
        ),
    ],
)
def test_a_family_that_cannot_be_decided_is_named(raw, changes, expected):
    assert problem(raw, "paper", **changes).startswith(expected)


def test_a_family_names_what_runs(raw):
    raw["sdtp"]["only"] = ["A2", "A3", "A4", "A5", "A6", "A7", "M1"]
    assert problem(raw) == (
        "paper.confirmatory.sdtp: 'B1m' does not run (sdtp.only); add it there, or take it out here"
    )
    raw["sdtp"]["only"] = []
    raw["paper"]["confirmatory"]["sdtp"] = []
    assert problem(raw) == (
        "paper.looks: looks are at what sdtp.evaluation measures, and sdtp.only is empty; set it to []"
    )


def test_looks_are_declared_for_what_is_measured_and_for_more(raw):
    for documents, retrieval in ((20, 20), (40, 30), (120, 80)):
        raw["sdtp"]["evaluation"] |= {"documents": documents}
        raw["sdtp"]["evaluation"]["retrieval"]["count"] = retrieval
        assert Plan(raw, ROOT).row("A7").jobs[0].spec.windows.documents == documents


@pytest.mark.parametrize(
    ("method", "name", "expect", "expected"),
    [
        (
            "sdtp",
            "A7",
            {"quality": "down", "text": "same"},
            "text: 'quality' is 'text' and 'retrieval'; leave",
        ),
        ("sdtp", "A7", {"quality": "down", "retrieval": "same"}, "retrieval: 'quality' is 'text' and"),
        (
            "sdtp",
            "B2",
            {"quality": "crash", "speed": "up"},
            "speed: what crashes has no result; leave it out",
        ),
        ("sdtp", "A7", {"quality": "unstable"}, "quality: input should be 'same', 'up', 'up_strong'"),
        (
            "sdtp",
            "G0",
            {"retrieval": "down"},
            "retrieval: retrieval is not measured (not over pipeline ranks)",
        ),
        (
            "dynatree",
            "D1",
            {"text": "down"},
            "text: decoding has no such measure; it is SDTP's, leave it out",
        ),
        ("dynatree", "D1", {"retrieval": "same"}, "retrieval: decoding has no such measure"),
        ("dynatree", "D1", {"quality": "down"}, "quality: 'down' cannot be: decoding emits the target's own"),
    ],
)
def test_what_no_measure_can_show_is_not_expected(raw, method, name, expect, expected):
    raw[method]["ablations"][name]["expect"] = expect
    assert problem(raw).startswith(f"{method}.ablations.{name}.expect.{expected}")


def test_without_retrieval_quality_is_that_of_text(raw):
    raw["sdtp"]["evaluation"]["retrieval"] = None
    expect = Plan(raw, ROOT).row("A7").experiment.expect
    assert (expect.quality, expect.text, expect.retrieval) == (None, "down", None)
    raw["sdtp"]["ablations"]["A7"]["expect"] = {"retrieval": "down"}
    assert problem(raw).startswith(
        "sdtp.ablations.A7.expect.retrieval: retrieval is not measured (sdtp.evaluation.retrieval is null)"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"documents": 61, "prompts": 1}, "documents: 61 are more than documents (60); lower it"),
        ({"documents": 20, "prompts": 41}, "prompts: 41 are more than retrieval.count (40); lower it"),
        ({"documents": 0, "prompts": 1}, "documents: input should be greater than 0 (got 0)"),
    ],
)
def test_exploratory_experiments_are_measured_on_a_part(raw, changes, expected):
    message = problem(raw, "sdtp", "evaluation", exploratory=changes)
    assert message == f"sdtp.evaluation.exploratory.{expected}"


def test_matched_rows_carry_the_baseline_they_are_matched_to(raw):
    raw["sdtp"]["ablations"]["B1"]["change"]["schedule"]["match"] = "flops"
    spec = Plan(raw, ROOT).row("B1").jobs[0].spec
    assert spec.layers == (4,)
    assert spec.match.quantity == "flops"
    assert spec.match.layers == (4, 7, 10, 12, 15, 18, 21, 23, 26, 29)


def test_of_two_keys_that_conflict_one_may_be_left_out(raw):
    del raw["dynatree"]["baseline"]["pruning"]
    assert problem(raw, "dynatree", "baseline", "shape", depth=300).startswith(
        "dynatree.baseline.pruning.max_nodes: 256 nodes cannot hold a path of depth 300; raise it"
    )


def test_a_missing_key_is_named(raw):
    del raw["sdtp"]["saliency"]
    assert problem(raw) == "sdtp.saliency: missing; this key is required"


def test_an_id_names_one_experiment(raw):
    raw["sdtp"]["ablations"]["F1"] = raw["sdtp"]["ablations"]["A7"]
    assert problem(raw).startswith("dynatree.ablations.F1: this id is also in sdtp.ablations")


@pytest.mark.parametrize(
    "name",
    [
        *("model", "target", "draft", "ngram", "distilled", "costs"),
        *(f"{kind}_acceptance" for kind in ("ngram", "neural", "distilled", "prompt_lookup")),
    ],
)
def test_a_text_cannot_take_the_name_of_another_input(raw, name):
    message = problem(raw, "texts", **{name: raw["texts"]["python"]})
    assert message == f"texts.{name}: this name is a job's own; choose another"


@pytest.mark.parametrize("needs_costs", ["grids", "cost_aware"])
def test_costs_are_asked_for_where_nothing_is_replayed_too(raw, needs_costs):
    raw["dynatree"] |= {"calibration": None, "only": ["F4"]}
    raw["dynatree"]["decoding"]["timed"] = None
    raw["paper"]["confirmatory"]["dynatree"] = ["F4"]
    raw["dynatree"]["ablations"]["F4"] |= {"versus": None, "expect": {"quality": "same"}}
    key = "dynatree.grids"
    if needs_costs == "grids":
        raw["dynatree"]["grids"] = GRIDS
    else:
        key = "dynatree.ablations.F4"
        raw["dynatree"]["ablations"]["F4"]["change"] = {"adaptation": {"kind": "cost_aware"}}
    assert problem(raw) == f"{key}: calibrated costs are needed; add the key dynatree.calibration"


def test_only_switches_on_a_subset(raw):
    raw["sdtp"]["only"] = ["A7"]
    raw["paper"]["confirmatory"]["sdtp"] = ["A7"]
    plan = Plan(raw, ROOT)
    assert [row.experiment.id for row in plan.rows if row.experiment.method == "sdtp"] == ["baseline", "A7"]
    assert plan.paper_plan("x").settings.main == ("baseline", "A7")


def without_decoding(raw):
    raw["dynatree"]["only"] = []
    raw["paper"]["confirmatory"]["dynatree"] = []
    return Plan(raw, ROOT)


def test_a_study_without_decoding_has_no_benchmark(raw):
    assert Plan(raw, ROOT).benchmark is not None
    assert without_decoding(raw).benchmark is None


def test_a_study_without_decoding_replays_no_grid(raw):
    raw["dynatree"]["grids"] = GRIDS
    assert Plan(raw, ROOT).grids
    assert not without_decoding(raw).grids


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        (("sdtp",), {"seeds": [0, 1, 0]}, "sdtp.seeds: 0 is there 2 times; name it once"),
        (("paper",), {"main": ["A1", "A1"]}, "paper.main: 'A1' is there 2 times; name it once"),
        (
            ("dynatree",),
            {"grids": {**GRIDS, "taus": [0.1, 0.1]}},
            "dynatree.grids.taus: 0.1 is there 2 times; name it once",
        ),
    ],
)
def test_what_is_there_twice_would_count_as_more(raw, path, changes, message):
    assert problem(raw, *path, **changes) == message


def test_a_study_of_decoding_alone(raw):
    raw["sdtp"]["only"] = []
    raw["paper"] |= {"confirmatory": {"dynatree": ["F4"]}, "looks": []}
    plan = Plan(raw, ROOT)
    assert {row.experiment.method for row in plan.rows} == {"dynatree"}
    assert not plan.sweeps
    paper = plan.paper_plan("x")
    assert paper.settings.main == ()
    assert set(paper.manifests) == {"dynatree"}


def test_saliency_may_be_of_another_text(raw):
    raw["sdtp"]["saliency"]["text"] = "written"
    plan = Plan(raw, ROOT)
    job = plan.row("baseline").jobs[0].inputs["text"]
    saliency = job.inputs["pruner"].inputs["saliency"]
    assert saliency.inputs["text"].spec.text == plan.config.texts["written"]
    assert job.inputs["text"].digest != saliency.inputs["text"].digest
    raw["sdtp"]["saliency"]["text"] = "writen"
    with pytest.raises(UserError, match=r"sdtp\.saliency\.text: 'writen' .* did you mean 'written'"):
        Plan(raw, ROOT)


def test_null_takes_a_kind_of_prompts_out(raw):
    raw["dynatree"]["prompts"]["chat"] = None
    assert "chat" not in Plan(raw, ROOT).config.dynatree.prompts


@pytest.mark.parametrize(
    "path", sorted((ROOT / "workflow/studies").glob("paper-scale*.yaml")), ids=lambda path: path.stem
)
def test_paper_scale_overlays_are_plannable(raw, path):
    update_config(raw, yaml.safe_load(path.read_text()))
    plan = Plan(raw, ROOT)
    fetched = [
        job.spec.model_dump()["model" if job.stage.rule == "prepare_model" else "text"]
        for job in plan.paper_jobs.values()
        if job.stage.rule in ("prepare_model", "prepare_text")
    ]
    assert all(source["revision"] for source in fetched)


def test_one_overlay_of_both_methods_measures_what_the_single_ones_do(raw):
    def records(name):
        study = copy.deepcopy(raw)
        update_config(study, yaml.safe_load((ROOT / f"workflow/studies/{name}.yaml").read_text()))
        return set(Plan(study, ROOT).records)

    both = records("paper-scale-sdtp-mistral") | records("paper-scale-dynatree-500")
    assert records("paper-scale") == both


def test_layers_are_evenly_spaced_to_the_last(raw):
    spec = Plan(raw, ROOT).row("baseline").jobs[0].spec
    assert spec.layers == (4, 7, 10, 12, 15, 18, 21, 23, 26, 29)
    assert spec.keep_ratios == (0.7,) * 10


def test_total_scope_spreads_the_ratio_over_the_stages(raw):
    raw["sdtp"]["baseline"]["schedule"] = {
        "stages": 10,
        "first_layer": 4,
        "keep_ratio": 0.5,
        "scope": "total",
    }
    ratios = Plan(raw, ROOT).row("baseline").jobs[0].spec.keep_ratios
    product = 1.0
    for ratio in ratios:
        product *= ratio
    assert product == pytest.approx(0.5)


@pytest.mark.parametrize("method", ["sdtp", "dynatree"])
@pytest.mark.parametrize("section", [None, "", "  "])
def test_an_experiment_without_a_section_is_an_error(raw, method, section):
    name = next(iter(raw[method]["ablations"]))
    if section is None:
        del raw[method]["ablations"][name]["section"]
    changes = {} if section is None else {"section": section}
    message = problem(raw, method, "ablations", name, **changes)
    assert message.startswith(f"{method}.ablations.{name}.section:")


def test_a_drafter_of_the_baseline_that_nobody_knows(raw):
    raw["dynatree"]["baseline"]["drafter"] = "hibrid"
    assert problem(raw).startswith("dynatree.baseline.drafter: 'hibrid' is not in dynatree.drafters")


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a:\n  A7: {x: 1}\n  A8: {x: 1}\nb:\n  A7: [{y: 2}, {y: 2}]\n")
    require_distinct_keys(path)
    path.write_text("a:\n  A7: {x: 1}\n  A7: {x: 1}\n")
    with pytest.raises(UserError, match=r"config\.yaml: line 3: the key 'A7' is there twice"):
        require_distinct_keys(path)
    path.write_bytes("a: café".encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.yaml: not UTF-8"):
        require_distinct_keys(path)
    path.write_text("a: [1\n")
    with pytest.raises(UserError, match=r"config\.yaml: not YAML"):
        require_distinct_keys(path)
