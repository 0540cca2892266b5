"""What the fields of a spec cannot be together: the spec itself says so, to whoever builds or reads it."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from ablations.core.contract import Contract
from ablations.core.errors import UserError, first_problem
from ablations.core.job import read_job
from ablations.specs.dynatree.arm import ArmSpec
from ablations.specs.dynatree.calibrate_costs import CostSpec
from ablations.specs.dynatree.calibrate_drafter import AcceptanceSpec
from ablations.specs.dynatree.calibrate_target import (
    TargetCostSpec,
    passes,
    prompt_lengths,
    row_counts,
    timings,
)
from ablations.specs.dynatree.decode import DecodeSeries, DecodeSpec
from ablations.specs.dynatree.distil import DistilSpec
from ablations.specs.dynatree.distil_teacher import TeacherSpec
from ablations.specs.dynatree.grid import GridSpec
from ablations.specs.dynatree.replay import ReplaySeries
from ablations.specs.sdtp.calibrate import CalibrationSpec
from ablations.specs.sdtp.counts import Layers
from ablations.specs.sdtp.evaluate import PrefillSeries, RetrievalSeries, Series, TextSeries
from ablations.specs.sdtp.record import EvaluateSpec
from ablations.specs.sdtp.saliency import SaliencySpec
from ablations.specs.sdtp.train import PrunerSpec

COMPUTE = {"dtype": "bfloat16", "threads": 1}
FLOAT16 = {"compute": {"dtype": "float16", "threads": 1}}
STAGES = {"layers": [1, 3], "keep_ratios": [0.7, 0.5]}
PRESERVE = {"head": 2, "tail": 4}
MATCH = {"quantity": "count", "preserve": PRESERVE, **STAGES}
SALIENCY = {"importance": "saliency", "saliency": {"measure": "norm", "loss_tokens": 8}}
ORACLE = {"importance": "oracle", "saliency": {"measure": "norm", "loss_tokens": None}}
PRUNED = STAGES | {"match": None, "preserve": PRESERVE, "saliency": None, "seed": 0, "compute": COMPUTE}
EVALUATE = PRUNED | {
    "windows": {"documents": 4, "prompt_tokens": 48, "continuation_tokens": 8},
    "retrieval": None,
    "timing": {"documents": 2, "repeats": 2},
}
TEXT = PRUNED | {"prompt_tokens": 48, "continuation_tokens": 8}
RETRIEVAL = PRUNED | {"prompt_tokens": 48, "prompts": {"tokens": 99, "depths": [0.5]}}
PREFILL = TEXT | {"repeats": 2}
CALIBRATE = STAGES | {
    "selection": "top_p",
    "preserve": PRESERVE,
    "documents": 3,
    "tokens": 48,
    "compute": COMPUTE,
}
PRUNER = STAGES | {"losses": {}, "preserve": PRESERVE, "seed": 0, "compute": COMPUTE}
WINDOWS = {
    "layers": [1, 3],
    "target": {},
    "documents": 6,
    "heldout_documents": 2,
    "tokens": 65,
    "compute": COMPUTE,
}
TREE = {"method": "tree", "depth": 4, "branching": 2}
LINE = {"method": "linear", "depth": 4, "branching": 1}
WHOLE = {"tau": None, "max_nodes": 64}
DYNAMIC = {"adaptation": {"kind": "dynamic"}}
DRAFTER = {"drafter": {"kind": "prompt_lookup"}}
ARM = DRAFTER | {"shape": TREE, "pruning": WHOLE}
PROMPTS = {
    "prompts": [{"kind": "code", "text": "prompts", "split": "heldout", "count": 2, "tokens": 30}],
    "new_tokens": 12,
    "compute": COMPUTE,
}
DECODE = ARM | PROMPTS | {"reference": "autoregressive", "repeats": 1}
KIND = {name: value for name, value in PROMPTS["prompts"][0].items() if name != "count"}
REPLAY = ARM | PROMPTS | {"prompts": KIND}
TREES = {"shape": TREE, "max_nodes": 4}
GRID = DRAFTER | PROMPTS | {"trees": [{"shape": LINE, "pruning": WHOLE}], "lengths": [4, 12]}
TEACHER = {"texts": 1, "questions": 0}

SOUND = {
    EvaluateSpec: EVALUATE,
    TextSeries: TEXT,
    RetrievalSeries: RETRIEVAL,
    PrefillSeries: PREFILL,
    CalibrationSpec: CALIBRATE,
    PrunerSpec: PRUNER,
    SaliencySpec: WINDOWS,
    ArmSpec: ARM,
    DecodeSpec: DECODE,
    DecodeSeries: DECODE | {"prompts": KIND},
    ReplaySeries: REPLAY,
    TargetCostSpec: {"prompts": PROMPTS["prompts"], "prefixes": [8, 16], "compute": COMPUTE},
    AcceptanceSpec: DRAFTER | PROMPTS | TREES,
    CostSpec: DRAFTER | PROMPTS | TREES,
    GridSpec: GRID,
    TeacherSpec: TEACHER,
    DistilSpec: {},
}
BROKEN: list[tuple[type[Contract], dict, str, str]] = [
    (EvaluateSpec, {"layers": [3, 1]}, "layers", "[3, 1] must be ascending, each layer once"),
    (EvaluateSpec, {"keep_ratios": [0.5]}, "keep_ratios", "1 ratios for 2 layers; give one each"),
    (TextSeries, {"preserve": {"head": 40, "tail": 8}}, "preserve", "keeps all 48 tokens of a prompt"),
    (PrefillSeries, {"preserve": {"head": 0.5, "tail": 0.5}}, "preserve", "keeps all 48 tokens of a prompt"),
    (EvaluateSpec, {"timing": {"documents": 5, "repeats": 1}}, "timing.documents", "5 timed documents, but"),
    (EvaluateSpec, {"importance": "prior", "mask": "soft"}, "mask", "'soft' needs the keep logits"),
    (EvaluateSpec, {"importance": "recent", "selection": "top_p"}, "selection", "'top_p' needs the keep"),
    (EvaluateSpec, {"mask": "soft", "propagation": "local"}, "propagation", "'local' needs mask 'hard'"),
    (EvaluateSpec, {"mask": "soft", "positions": "packed"}, "positions", "'packed' renumbers survivors"),
    (EvaluateSpec, {"propagation": "stale_keys", "positions": "stale"}, "positions", "'stale' renumbers"),
    (RetrievalSeries, {"importance": "saliency"}, "saliency", "belongs to importance 'saliency'"),
    (TextSeries, SALIENCY | {"importance": "learned"}, "saliency", "belongs to importance 'saliency'"),
    (TextSeries, SALIENCY | FLOAT16, "importance", "'saliency' takes gradients, which underflow"),
    (
        TextSeries,
        SALIENCY | {"saliency": {"measure": "norm", "loss_tokens": 48}},
        "saliency.loss_tokens",
        "48 is not less than the prompt's 48 tokens",
    ),
    (TextSeries, ORACLE | {"saliency": None}, "saliency", "belongs to importance 'saliency' or 'oracle'"),
    (TextSeries, ORACLE | FLOAT16, "importance", "'oracle' takes gradients, which underflow"),
    (
        TextSeries,
        SALIENCY | {"importance": "oracle"},
        "saliency.loss_tokens",
        "the oracle's gradient is of what follows the prompt; set it to null",
    ),
    (PrefillSeries, ORACLE, "importance", "'oracle' is no method, and its prefill is not timed"),
    (EvaluateSpec, ORACLE, "timing", "'oracle' is no method, and its prefill is not timed; set it to null"),
    (
        EvaluateSpec,
        {"importance": "learned_distance", "selection": "top_p"},
        "selection",
        "'top_p' needs the keep logits of importance 'learned', not 'learned_distance'",
    ),
    (EvaluateSpec, {"importance": "attention_last", "mask": "soft"}, "mask", "'soft' needs the keep logits"),
    (
        EvaluateSpec,
        {"importance": "attention_window", "selection": "threshold"},
        "selection",
        "'threshold'",
    ),
    (TextSeries, {"match": MATCH, "propagation": "local"}, "match", "needs selection 'top_k'"),
    (
        PrefillSeries,
        {"match": MATCH, "layers": [1], "keep_ratios": [0.5]},
        "match",
        "'count' needs the matched configuration's 2 stages, not 1; use 'flops'",
    ),
    (
        EvaluateSpec,
        {"pipeline": {"ranks": 2}, "importance": "prior"},
        "importance",
        "'prior' does not run over pipeline ranks; use learned or learned_distance or random or recent or",
    ),
    *(
        (TextSeries, {"pipeline": {"ranks": 2}} | change, "importance", f"'{name}' does not run over pipe")
        for name, change in {
            "oracle": ORACLE,
            "attention_last": {"importance": "attention_last"},
            "attention_window": {"importance": "attention_window"},
        }.items()
    ),
    (
        EvaluateSpec,
        {"pipeline": {"ranks": 2}, "retrieval": {"tokens": 99, "count": 1}},
        "retrieval",
        "retrieval is not measured over pipeline ranks",
    ),
    (RetrievalSeries, {"pipeline": {"ranks": 2}}, "prompts", "retrieval is not measured over pipeline"),
    (CalibrationSpec, {"keep_ratios": [0.5]}, "keep_ratios", "1 ratios for 2 layers"),
    (CalibrationSpec, {"tokens": 6}, "preserve", "keeps all 6 tokens of a prompt"),
    (PrunerSpec, {"keep_ratios": [0.5]}, "keep_ratios", "1 ratios for 2 layers"),
    (PrunerSpec, {"losses": {"lm": 0, "mse": 0, "ranking": 0}}, "losses", "all weights are zero"),
    (PrunerSpec, FLOAT16, "compute.dtype", "float16 gradients underflow"),
    (SaliencySpec, FLOAT16, "compute.dtype", "float16 gradients underflow"),
    (SaliencySpec, {"tokens": 64}, "tokens", "64 leave no prompt before continuation_tokens (64)"),
    (ArmSpec, {"shape": None}, "", "'shape' and 'pruning' are needed with a drafter"),
    (ArmSpec, {"shape": LINE | {"branching": 2}}, "shape.branching", "a linear draft is one path"),
    (ArmSpec, {"shape": LINE} | DYNAMIC, "adaptation", "a linear draft has a fixed length"),
    (
        ArmSpec,
        {"shape": LINE, "pruning": WHOLE | {"tau": 0.1}},
        "pruning.tau",
        "a linear draft is not pruned",
    ),
    (ArmSpec, {"pruning": {"max_nodes": 3}}, "pruning.max_nodes", "3 nodes cannot hold a path of depth 4"),
    (ArmSpec, {"pruning": {"max_nodes": 7}} | DYNAMIC, "pruning.max_nodes", "7 nodes cannot hold a path of"),
    (ArmSpec, {"shape": TREE | {"depth": 9}} | DYNAMIC, "adaptation.max_depth", "8 is less than the base"),
    (DecodeSpec, {"pruning": {"max_nodes": 3}}, "pruning.max_nodes", "3 nodes cannot hold a path"),
    (DecodeSpec, {"prompts": [PROMPTS["prompts"][0] | {"chat": True}]}, "prompts.0", "a turn of a chat is"),
    (ReplaySeries, {"pruning": {"max_nodes": 3}}, "pruning.max_nodes", "3 nodes cannot hold a path"),
    (ReplaySeries, {"prompts": KIND | {"chat": True}}, "prompts", "a turn of a chat is taken whole"),
    *((TargetCostSpec, {"prefixes": each}, "prefixes", "numbers must rise") for each in ([16, 8], [8, 8])),
    (TargetCostSpec, {"prefixes": []}, "prefixes", "Tuple should have at least 1 item"),
    (AcceptanceSpec, {"max_nodes": 3}, "max_nodes", "3 nodes cannot hold a path of depth 4"),
    (CostSpec, {"max_nodes": 3}, "max_nodes", "3 nodes cannot hold a path of depth 4"),
    (GridSpec, {"lengths": [12, 4]}, "lengths", "numbers must rise"),
    (GridSpec, {"lengths": [4, 8]}, "lengths", "must rise to 'new_tokens' (12)"),
    (
        GridSpec,
        {"trees": [{"shape": LINE, "pruning": WHOLE | {"max_nodes": 3}}]},
        "trees.0.pruning.max_nodes",
        "3 nodes cannot hold a path of depth 4",
    ),
    (TeacherSpec, {"texts": 0}, "texts", "the target has nothing to write"),
    (DistilSpec, FLOAT16, "compute.dtype", "float16 gradients underflow"),
]


@pytest.mark.parametrize("spec", SOUND)
def test_what_the_broken_ones_are_made_of_is_sound(spec):
    assert spec.model_validate(SOUND[spec])


@pytest.mark.parametrize(("spec", "change", "key", "message"), BROKEN)
def test_a_spec_that_cannot_be_is_not_built(spec, change, key, message):
    with pytest.raises(ValidationError) as caught:
        spec.model_validate(SOUND[spec] | change)
    found, why = first_problem(caught.value)
    assert found == key
    assert why.startswith(message)


def test_a_job_does_not_load_one(tmp_path):
    path = tmp_path / "spec.json"
    described = {"digest": "d", "module": "m", "spec_digest": "s", "code_digest": "c"}
    path.write_text(json.dumps(described | {"spec": TEXT}))
    assert read_job(path, TextSeries).spec.prompt_tokens == 48
    path.write_text(json.dumps(described | {"spec": TEXT | {"preserve": {"head": 48, "tail": 0}}}))
    with pytest.raises(UserError) as caught:
        read_job(path, TextSeries)
    assert str(caught.value).startswith(f"{path}: not a spec of this job: spec.preserve: keeps all 48 tokens")


@pytest.mark.parametrize("measured", [TextSeries, RetrievalSeries, PrefillSeries])
def test_a_series_says_what_is_measured(measured):
    """Specs of different measures stay apart: their digests differ, and a panel knows which one it has."""
    spec = measured.model_validate(SOUND[measured])
    assert TypeAdapter(Series).validate_python(spec.model_dump(mode="json")) == spec


def test_a_series_counts_no_items():
    for spec, count in (
        (TextSeries, {"documents": 3}),
        (PrefillSeries, {"documents": 3}),
        (RetrievalSeries, {"prompts": RETRIEVAL["prompts"] | {"count": 3}}),
        (DecodeSeries, {"prompts": PROMPTS["prompts"][0]}),
        (ReplaySeries, {"prompts": PROMPTS["prompts"][0]}),
    ):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            spec.model_validate(SOUND[spec] | count)


def test_a_replay_is_not_repeated():
    for key in ("repeats", "discarded", "warmup", "reference"):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            ReplaySeries.model_validate(REPLAY | {key: 1})


@pytest.mark.parametrize(
    ("most", "counts"),
    [
        (1, [1]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (17, list(range(1, 18))),
        # 16 and 32 times 2 to the power of 1/4, 2/4 and 3/4, rounded; 32 is too near the most.
        (33, [*range(1, 17), 19, 23, 27, 33]),
        (257, [*range(1, 17), 19, 23, 27, 32, 38, 45, 54, 64, 76, 91, 108, 128, 152, 181, 215, 257]),
    ],
)
def test_forwards_of_few_rows_are_all_timed_and_of_many_rows_four_to_a_doubling(most, counts):
    assert row_counts(most) == counts


def test_few_rows_are_timed_oftener_and_every_size_in_passes_over_the_whole_calibration():
    counts = row_counts(257)
    timed = passes(counts, 4)
    assert [sum(rows in one for one in timed) for rows in counts] == [timings(rows, 4) for rows in counts]
    assert timings(1, 4) == len(timed) == 23
    assert timings(32, 4) == timings(257, 4) == 4
    assert [index for index, one in enumerate(timed) if 257 in one] == [5, 11, 17, 22]


@pytest.mark.parametrize(
    ("longest", "lengths"), [(32, [4, 8, 12, 16, 20, 24, 28, 32]), (3, [1, 2, 3]), (1, [1])]
)
def test_prompts_are_timed_in_eight_equal_steps(longest, lengths):
    assert prompt_lengths(longest) == lengths


@pytest.mark.parametrize("layers", [[], [1, 1], [2, 1], [-1]])
def test_layers_that_cannot_be(layers):
    with pytest.raises(ValidationError):
        TypeAdapter(Layers).validate_python(layers)
