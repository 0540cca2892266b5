"""Results of an experiment by document and training seed."""

import math

import pytest

from ablations.core.errors import UserError
from ablations.core.record import write_record
from ablations.evidence.records import added_nll, noise_floors, per_document, priced_speedup, read_arm
from ablations.evidence.statistics import ANY_SEED
from tests.evidence.arms import arm_of, decoding, sdtp


def rows(table):
    return {document: list(row) for document, row in zip(table.index, table.to_numpy(), strict=True)}


def test_a_trained_arm_has_a_column_for_each_training():
    arm = sdtp("A5", [[0.1, 0.2], [0.3, 0.4]], [[1.0, 2.0]], [0.5], seeds=(3, 7))
    assert list(arm.values["text"].columns) == [3, 7]
    assert rows(arm.values["text"]) == {"d0": [0.1, 0.2], "d1": [0.3, 0.4]}
    assert rows(arm.values["retrieval"]) == {"r0": [1.0, 2.0]}
    assert list(arm.values["speed"].columns) == [ANY_SEED]
    assert rows(arm.values["speed"]) == {"d0": [pytest.approx(0.5)]}


def test_an_untrained_arm_has_one_for_all():
    arm = sdtp("M1", [0.1, 0.3], [1.0])
    assert list(arm.values["text"].columns) == list(arm.values["retrieval"].columns) == [ANY_SEED]
    assert "speed" not in arm.values


def test_seeds_that_train_nothing_are_averaged_within_documents():
    two = sdtp("A2", [[0.1, 0.2], [0.3, 0.5]], seeds=(0, 1))
    untrained = two.experiment.model_copy(update={"seeds": ()})
    values = arm_of(untrained, two.records).values["text"]
    assert rows(values) == {"d0": [pytest.approx(0.15)], "d1": [pytest.approx(0.4)]}


def test_a_value_of_documents_that_all_records_have_in_order():
    arm = sdtp("A5", [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], seeds=(0, 1))
    one, other = arm.records
    shorter = other.model_copy(update={"samples": (other.samples[2], other.samples[0])})
    table = per_document([one, shorter], added_nll)
    assert rows(table) == {"d0": [0.5, 0.5], "d2": [0.5, 0.5]}


@pytest.mark.parametrize("of", ["text", "retrieval"])
def test_a_document_that_occurs_twice_is_an_error(of):
    arm = sdtp("A1", [0.1, 0.2], [1.0, 2.0])
    record = arm.records[0]
    if of == "text":
        record = record.model_copy(update={"samples": record.samples[:1] * 2})
    else:
        probes = record.totals.retrieval[:1] * 2
        record = record.model_copy(update={"totals": record.totals.model_copy(update={"retrieval": probes})})
    with pytest.raises(UserError, match=r"A1-0.json: document '.0' occurs twice; delete the record"):
        arm_of(arm.experiment, (record,))


def test_a_record_without_documents_is_an_error():
    arm = sdtp("A1")
    with pytest.raises(UserError, match="an experiment that ended well has samples and totals"):
        arm_of(arm.experiment, (arm.records[0].model_copy(update={"samples": ()}),))


@pytest.mark.parametrize("ended", ["crashed", "not_run"])
def test_what_did_not_end_well_has_no_results(ended):
    arm = sdtp("A1", ended=ended)
    assert (arm.status, arm.values) == (ended, {})


def test_prompts_of_decoding_are_told_apart_by_kind():
    arm = decoding("F4", [0.2, 0.4])
    assert rows(arm.values["speed"]) == {
        "code/p0": [pytest.approx(0.2)],
        "code/p1": [pytest.approx(0.4)],
    }


def test_replayed_prompts_have_a_speed_by_price():
    arm = decoding("F4", {"code": [0.2], "docs": [0.4]}, {"code": [0.25, 0.3], "docs": [0.5]})
    assert dict(arm.priced) == {
        "code/p0": pytest.approx(0.25),
        "code/p1": pytest.approx(0.3),
        "docs/p0": pytest.approx(0.5),
    }
    assert rows(arm.values["speed"]) == {
        "code/p0": [pytest.approx(0.2)],
        "docs/p0": [pytest.approx(0.4)],
    }


def test_a_speed_by_price_is_of_the_whole_generation():
    (replay,) = decoding("F4", [0.2], {"code": [0.25]}).records[0].totals.replays
    prices = {"first": 2.0, "rounds": 6.0, "reference_first": 1.0, "reference_rounds": 15.0}
    assert priced_speedup(replay.model_copy(update=prices)) == pytest.approx(math.log(2.0))


def test_what_was_not_replayed_has_no_price():
    assert decoding("F4", [0.2]).priced is None
    assert decoding("F4", [0.2], {"code": [0.2]}, ended="crashed").priced is None
    assert sdtp("A1").priced is None


def test_a_replay_that_occurs_twice_is_an_error():
    arm = decoding("F4", {"code": [0.2], "docs": [0.2]}, {"code": [0.2, 0.3], "docs": [0.2]})
    (record,) = arm.records
    totals = record.totals.model_copy(update={"replays": record.totals.replays[:1] * 2})
    with pytest.raises(UserError, match=r"F4-0.json: document 'code/p0' occurs twice; delete the record"):
        arm_of(arm.experiment, (record.model_copy(update={"totals": totals}),))


def test_autoregressive_decoding_is_the_measure_of_speed():
    arm = decoding("F4", [0.2, 0.4])
    alone = arm.records[0].spec.model_copy(update={"drafter": None})
    values = arm_of(arm.experiment, (arm.records[0].model_copy(update={"spec": alone}),)).values["speed"]
    assert rows(values) == {"code/p0": [0.0], "code/p1": [0.0]}


def test_a_drafting_arm_beside_generate_is_an_error():
    arm = decoding("F4", [0.2])
    beside = arm.records[0].spec.model_copy(update={"reference": "generate"})
    with pytest.raises(UserError, match="must be measured beside autoregressive decoding"):
        arm_of(arm.experiment, (arm.records[0].model_copy(update={"spec": beside}),))


def test_records_are_read_from_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arm = sdtp("A5", [[0.1, 0.2], [0.3, 0.4]], seeds=(0, 1))
    assert read_arm(arm.experiment).status == "not_run"
    for name, record in zip(arm.experiment.records, arm.records, strict=True):
        write_record(tmp_path / name, record)
    read = read_arm(arm.experiment)
    assert read.status == "ok"
    assert rows(read.values["text"]) == rows(arm.values["text"])


def test_the_noise_floor_is_of_each_method_and_counts_a_document_once():
    arms = [
        sdtp("A1", [0.1], speed=[0.5], noise=-0.04),
        sdtp("A2", [0.1], speed=[0.1], noise=-0.04),
        sdtp("A3", [0.1] * 3, speed=[0.1] * 3, noise=0.01),
        sdtp("A4", [0.1] * 3, speed=[0.1] * 3),
        decoding("F4", [0.2], noise=0.5),
        decoding("F3", [0.2]),
    ]
    # The first two were measured side by side: 0.04 once, 0.01 three times.
    assert noise_floors(arms) == {
        "sdtp": pytest.approx(0.01 + 0.85 * 0.03),
        "dynatree": pytest.approx(0.5),
    }
    assert noise_floors([arms[3], arms[-1]]) == {}


def test_speeds_are_in_the_order_of_measurement():
    arm = sdtp("A1", [0.1] * 12, speed=[0.01 * i for i in range(12)])
    assert list(arm.values["speed"].index) == [f"d{i}" for i in range(12)]
    assert math.isclose(arm.values["speed"].iloc[11, 0], 0.11)
