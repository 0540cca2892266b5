"""The decoding benchmark of the tiny study through real Snakemake."""

import json

from tests.workflow.conftest import BENCHMARK

MEASURING = "Decoding in every way, side by side"
SUMMING = "Summing the decoding benchmark up in results/benchmark/decoding.md"


def planned(study) -> list[str]:
    done = study.snakemake("-n", BENCHMARK)
    assert done.code == 0, done.output
    return [line for line in (MEASURING, SUMMING) if line in done.output]


def test_every_way_to_decode_is_in_the_summary_and_in_the_table(finished):
    found = json.loads((finished.path / BENCHMARK).read_text())
    for key in ("speedup_over_best_ar", "speedup_over_best_hf", "neural_speedup_over_best_ar"):
        assert found[key]["low"] <= found[key]["value"] <= found[key]["high"]
    arms = {arm["id"]: arm for arm in found["arms"]}
    assert {"F1", "F4", "O1", "PL", "N3", "NG", "N0", "HF", "HF-lookup", "HF-assisted"} <= set(arms)
    # K2 and K4 are the records of F3 and F1.
    assert not {"K2", "K4"} & set(arms)
    assert all(arm["identical"] == arm["prompts"] for arm in arms.values())
    table = (finished.path / "results/benchmark/decoding.md").read_text()
    assert all(f"| {name} |" in table for name in arms)


def test_the_benchmark_is_measured_once_and_summed_up_anew_when_its_reading_changes(study):
    record = json.loads((study.path / BENCHMARK).read_text())["record"]
    assert planned(study) == []
    study.replace("config.yaml", "best_of: [F4, O1]", "best_of: [F4]")
    assert planned(study) == [SUMMING]
    assert study.snakemake(BENCHMARK).code == 0
    assert json.loads((study.path / BENCHMARK).read_text())["speedup_over_best_ar"]["arm"] == "F4"
    (study.path / record).unlink()
    assert planned(study) == [MEASURING, SUMMING]
    # The section does not need it.
    assert study.planned() == []
