"""The decoding benchmark summed up, on a record with known times."""

import math

import numpy as np
import pytest
from recompute_decisions import mean_of

from ablations.evidence.inputs import BenchmarkInput
from ablations.paper.benchmark import BenchmarkRecord, summarise
from ablations.paper.benchmark_table import markdown

TOKENS = 20
NGRAM = {"kind": "ngram", "context_weight": 4.0}
HYBRID = {"kind": "hybrid", "context_weight": 4.0}
DRAFTING = {"shape": {}, "pruning": {}, "inputs": {}}
NONE = {"drafter": None, "shape": None, "pruning": None, "inputs": {}}

# Seconds of each arm on each prompt: two code, three chat.
SECONDS = {
    "F1": [2.0, 2.2, 3.0, 3.2, 2.8],
    "F3": [4.0, None, 9.0, None, None],
    "F4": [1.0, 1.0, 2.0, 1.6, 1.9],
    "O1": [1.0, 1.1, 2.5, 2.9, 3.0],
    "H1": [1.5, 1.4, 2.0, 2.1, 2.2],
    "HF": [2.5, 2.5, 3.5, 3.5, 3.6],
    "HF-lookup": [1.4, 1.6, 2.9, 3.0, 2.7],
}
PROMPTS = [("code", "a"), ("code", "b"), ("chat", "a"), ("chat", "b"), ("chat", "c")]


def run(name: str, seconds: float) -> dict:
    own = not name.startswith("HF")
    return {
        # One of three repeats was disturbed.
        "seconds": [seconds * 5, seconds, seconds * 0.9],
        "first_seconds": 0.1,
        "new_tokens": TOKENS,
        "matched": True,
        "ties": 0,
        "target_forwards": 19 if name in ("F1", "HF") else 9,
        "draft_forwards": 0,
        "drafted": 0,
        "accepted": 0 if name in ("F1", "HF") else 10,
        "draft_seconds": 0.2 if own else 0.0,
        "verify_seconds": 0.6 if own else 0.0,
        "bookkeeping_seconds": 0.1 if own else 0.0,
    }


def record(**changes) -> BenchmarkRecord:
    samples = [
        {
            "document": document,
            "kind": kind,
            "prompt_tokens": 9,
            "repeated_4grams": 0.25,
            "runs": {name: run(name, row[place]) for name, row in SECONDS.items() if row[place]},
        }
        for place, (kind, document) in enumerate(PROMPTS)
    ]
    arms = {
        "F1": NONE,
        "F3": {"drafter": NGRAM, **DRAFTING, "prompts": 1},
        "F4": {"drafter": NGRAM, **DRAFTING},
        "O1": {"drafter": NGRAM, **DRAFTING, "adaptation": {"kind": "cost_aware"}},
        "H1": {"drafter": HYBRID, **DRAFTING},
    }
    sets = [
        {"kind": kind, "text": kind, "split": "heldout", "count": count, "tokens": None}
        for kind, count in (("code", 2), ("chat", 3))
    ]
    spec = {
        "prompts": sets,
        "new_tokens": TOKENS,
        "arms": arms,
        "transformers": {
            "HF": {"method": "generate"},
            "HF-lookup": {"method": "prompt_lookup"},
            "HF-assisted": {"method": "assisted"},
        },
        "assistant": None,
        "repeats": 3,
        "warmup": 1,
        "compute": {},
    }
    return BenchmarkRecord.model_validate(
        {
            "label": None,
            "module": "m",
            "spec": spec | changes,
            "outcome": {"status": "ok"},
            "samples": samples,
            "totals": {"tie_margin": 0.0, "weight_layout": "stock", "peak_memory_bytes": 1},
            "environment": {
                "measured_at": "2026-01-01T00:00:00+00:00",
                "seconds": 1.0,
                "host": "h",
                "device": "d",
                "device_type": "cpu",
                "threads": 1,
                "dtype": "float32",
                "platform": "p",
                "versions": {},
                "git_commit": None,
                "git_dirty": None,
            },
            "digests": {"job": "d", "spec": "s", "code": "c", "inputs": {}, "pins": {}},
        }
    )


def plan(**changes) -> BenchmarkInput:
    titles = {name: f"title of {name}" for name in ("F1", "F3", "F4", "O1", "H1")}
    known = {
        "study": "s",
        "record": "r",
        "arms": {name: name for name in titles},
        "titles": titles,
        "best_of": ("F4", "O1"),
        "alpha": 0.05,
        "code": "",
    }
    return BenchmarkInput(**(known | changes))


def log_ratios(arm: str, versus: str, kind: str) -> list[float]:
    return [
        math.log(there / here)
        for (name, _), here, there in zip(PROMPTS, SECONDS[arm], SECONDS[versus], strict=True)
        if name == kind and here and there
    ]


def test_headlines_are_ratios_over_the_fastest_rivals():
    found = summarise(plan(), record())
    assert (found.best_ar, found.best_hf) == ("F1", "HF-lookup")
    for speedup, arm, versus in (
        (found.speedup_over_best_ar, "F4", "F1"),
        (found.speedup_over_best_hf, "F4", "HF-lookup"),
        (found.neural_speedup_over_best_ar, "H1", "F1"),
    ):
        assert (speedup.arm, speedup.versus, speedup.prompts) == (arm, versus, 5)
        code, chat = log_ratios(arm, versus, "code"), log_ratios(arm, versus, "chat")
        # As the tables of the study have it: every prompt weighs the same.
        low, high = mean_of(np.array([*code, *chat])).interval(0.05)
        assert speedup.value == pytest.approx(math.exp((sum(code) + sum(chat)) / 5))
        assert speedup.low == pytest.approx(math.exp(low))
        assert speedup.high == pytest.approx(math.exp(high))
        assert speedup.kinds == pytest.approx(
            {"code": math.exp(sum(code) / 2), "chat": math.exp(sum(chat) / 3)}
        )


def test_a_study_without_the_method_or_a_network_says_so():
    alone = record()
    arms = {name: alone.spec.arms[name] for name in ("F1", "F4", "O1", "F3")}
    samples = tuple(
        sample.model_copy(update={"runs": {name: run for name, run in sample.runs.items() if name != "H1"}})
        for sample in alone.samples
    )
    alone = alone.model_copy(
        update={"spec": alone.spec.model_copy(update={"arms": arms}), "samples": samples}
    )
    found = summarise(plan(best_of=(), arms={name: name for name in arms}), alone)
    assert found.speedup_over_best_ar is None
    assert found.speedup_over_best_hf is None
    assert found.neural_speedup_over_best_ar is None
    assert markdown(found).count("not measured") == 3


def test_arms_that_did_less_are_named():
    found = summarise(plan(), record())
    arms = {arm.id: arm for arm in found.arms}
    assert list(arms) == ["F1", "F3", "F4", "O1", "H1", "HF", "HF-lookup"]
    assert any("HF-assisted" in note and "was not run" in note for note in found.notes)
    assert any(note.endswith("each kind: F3 1.") for note in found.notes)
    assert any("chosen on the same prompts" in note for note in found.notes)
    assert (arms["F3"].prompts, arms["F3"].over_best_ar.prompts) == (2, 2)
    assert arms["F3"].over_best_ar.low < arms["F3"].over_best_ar.value < arms["F3"].over_best_ar.high
    assert arms["F3"].over_best_ar.value == pytest.approx(math.sqrt((2.0 / 4.0) * (3.0 / 9.0)))
    assert found.prompts == {"code": 2, "chat": 3}


def test_an_arms_row_has_its_rates_and_its_time():
    found = summarise(plan(), record())
    arms = {arm.id: arm for arm in found.arms}
    assert arms["F4"].tokens_per_second == pytest.approx(5 * TOKENS / sum(SECONDS["F4"]))
    # Twenty tokens of which prefill gave one: ten accepted in nine rounds.
    assert arms["F4"].tokens_per_forward == pytest.approx(1 + 10 / 9)
    assert arms["F1"].tokens_per_forward == 1.0
    split = arms["F4"].time
    assert (split.first_token, split.draft, split.verify, split.bookkeeping) == pytest.approx(
        (0.1, 0.2, 0.6, 0.1)
    )
    assert arms["HF"].time is None
    lines = markdown(found).splitlines()
    cells = next(line for line in lines if line.startswith("| F4 |")).split(" | ")
    assert cells[1] == "title of F4"
    assert cells[2] == f"{arms['F4'].tokens_per_second:.1f}"
    assert cells[-2:] == ["10% / 20% / 60% / 10%", "5 of 5 |"]
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in tables[5:]}) == 1
