"""A record is the first items of its series, whatever the blocks in which they were measured."""

import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from ablations.core.errors import UserError
from ablations.core.record import Outcome, read_record, read_rows
from ablations.evidence.join import DecodeRecord, SdtpRecord, decoding_record, sdtp_record
from ablations.specs.dynatree.arm import DynamicTree
from ablations.specs.dynatree.costs import COSTS_FILE, Costs, Line, TargetCosts
from ablations.specs.dynatree.decode import DecodingTotals
from ablations.specs.dynatree.exactness import DecodeTotals
from ablations.specs.dynatree.replay import COSTS, PricedReplay, Replay, ReplayTotals
from ablations.specs.sdtp.record import SdtpSample, SdtpTotals
from tests.evidence.series import (
    Study,
    decode_spec,
    decoded,
    drafted,
    drafting_spec,
    environment,
    evaluate_spec,
    facts,
    prefill,
    probe,
    replayed,
    text,
)


def sdtp(study: Study, label: str | None = "A1") -> tuple[SdtpRecord, list[dict]]:
    return sdtp_record(study.spec, label, study.digests(), study.folders())


def decoding(study: Study) -> tuple[DecodeRecord, list[dict]]:
    return decoding_record(study.spec, "F1", study.digests(), study.folders())


@pytest.fixture
def measured(tmp_path) -> Study:
    """Series of more blocks and items than the record counts."""
    study = Study(tmp_path, evaluate_spec(documents=4, prompts=4, timed=3))
    study.block("text", (0, 2), environment(5.0, 2), facts(memory=100))
    study.block("text", (2, 6), environment(7.0, 1), facts(memory=300))
    study.block("text", (6, 8), environment(900.0, 23), facts(memory=9000))
    study.block("retrieval", (0, 8), environment(11.0, 3))
    study.block("prefill", (0, 6), environment(13.0, 1))
    return study


def test_a_record_is_the_one_that_is_put_together_by_hand(measured):
    record, rows = sdtp(measured)
    samples = tuple(
        SdtpSample(
            **text(number).model_dump(exclude={"flops", "kv_bytes"}),
            prompt_tokens=48,
            pairs=prefill(number).pairs if number < 3 else (),
        )
        for number in range(4)
    )
    totals = SdtpTotals(
        keep_ratios=(0.5,),
        prefill_flops=fmean([600, 610, 620, 630]),
        reference_prefill_flops=1000.0,
        kv_bytes=fmean([300, 301, 302, 303]),
        reference_kv_bytes=500,
        retrieval=tuple(map(probe, range(4))),
        weight_layout="stock",
        cores=2,
        peak_memory_bytes=300,
    )
    assert record == SdtpRecord(
        label="A1",
        module="ablations.sdtp.evaluate",
        spec=measured.spec,
        outcome=Outcome(status="ok"),
        samples=samples,
        totals=totals,
        # The block beyond the counted documents has no part in it.
        environment=environment(5.0 + 7.0 + 11.0 + 13.0, 3),
        digests=measured.digests(),
    )
    assert rows == [{"item": number, "of": "text"} for number in range(4)]


def test_a_smaller_count_is_the_beginning_of_a_larger_one(measured, tmp_path):
    larger, _ = sdtp(measured)
    smaller, rows = sdtp(Study(tmp_path, evaluate_spec(documents=3, prompts=2, timed=1)))
    assert [sample.document for sample in smaller.samples] == ["d0", "d1", "d2"]
    assert [len(sample.pairs) for sample in smaller.samples] == [2, 0, 0]
    assert smaller.samples[0] == larger.samples[0]
    assert smaller.totals.retrieval == larger.totals.retrieval[:2]
    assert len(rows) == 3


def test_what_is_not_asked_for_is_not_read(tmp_path):
    study = Study(tmp_path, evaluate_spec(documents=2, prompts=0, timed=0))
    study.block("text", (0, 2))
    record, _ = sdtp(study)
    assert record.totals.retrieval == ()
    assert [sample.pairs for sample in record.samples] == [(), ()]


def test_how_a_series_is_cut_into_blocks_does_not_matter(tmp_path):
    def joined(name: str, spans: list[tuple[int, int]]) -> tuple[SdtpRecord, list[dict]]:
        study = Study(tmp_path / name, evaluate_spec(documents=6, prompts=0, timed=0))
        for span in spans:
            study.block("text", span, environment(seconds=6.0 / len(spans)))
        return sdtp(study)

    whole = joined("whole", [(0, 6)])
    assert joined("thirds", [(0, 2), (2, 4), (4, 6)]) == whole
    overlapping, rows = joined("overlapping", [(0, 4), (2, 6)])
    assert (overlapping.samples, rows) == (whole[0].samples, whole[1])


def test_kinds_of_prompts_stand_in_the_order_of_the_spec(tmp_path):
    study = Study(tmp_path, decode_spec(docs=1, code=2))
    study.block("code", (0, 3))
    study.block("docs", (0, 1), samples=[decoded(7)])
    record, rows = decoding(study)
    assert [sample.document for sample in record.samples] == ["p7", "p0", "p1"]
    assert rows == [{"item": 0, "of": "docs"}, {"item": 0, "of": "code"}, {"item": 1, "of": "code"}]
    assert record.module == "ablations.dynatree.decode"


def test_totals_of_decoding_are_those_of_the_worst_block(tmp_path):
    study = Study(tmp_path, decode_spec(code=2))
    for number, (margin, memory) in enumerate([(0.0, 500), (0.25, 300)]):
        totals = DecodeTotals(tie_margin=margin, weight_layout="packed", peak_memory_bytes=memory)
        study.block("code", (number, number + 1), totals=totals)
    record, _ = decoding(study)
    assert record.totals == DecodingTotals(tie_margin=0.25, weight_layout="packed", peak_memory_bytes=500)


@pytest.mark.parametrize(
    ("crashed", "said"),
    [
        ({"text", "retrieval", "prefill"}, "text"),
        ({"retrieval", "prefill"}, "retrieval"),
        ({"prefill"}, "prefill"),
    ],
)
def test_a_crash_of_a_series_is_the_record(measured, crashed, said):
    for name in crashed:
        measured.crash(name, 1, f"of {name}")
    record, rows = sdtp(measured)
    assert (record.outcome.status, record.outcome.message) == ("crashed", f"of {said}")
    assert (record.samples, record.totals, rows) == ((), None, [])
    assert (record.spec, record.digests) == (measured.spec, measured.digests())


def test_a_crash_beyond_the_counted_items_is_none_of_this_record(measured):
    measured.crash("text", 6)
    measured.crash("prefill", 3)
    assert sdtp(measured)[0].outcome.status == "ok"


def test_a_crash_of_one_kind_is_the_record_of_decoding(tmp_path):
    study = Study(tmp_path, decode_spec(docs=1, code=1))
    study.block("docs", (0, 1))
    study.crash("code", 0)
    assert decoding(study)[0].outcome.exception == "RuntimeError"


@pytest.mark.parametrize(("name", "span"), [("text", (2, 6)), ("retrieval", (0, 8)), ("prefill", (0, 6))])
def test_blocks_of_different_devices_are_not_joined(measured, name, span):
    measured.block(name, span, environment(device="Other GPU"))
    with pytest.raises(UserError) as caught:
        sdtp(measured)
    message = str(caught.value)
    assert "'CPU'" in message
    assert "'Other GPU'" in message
    assert "run `python -m ablations.study forget A1`" in message
    assert "\n" not in message


def test_blocks_of_unlike_layouts_are_not_joined(measured):
    measured.block("prefill", (0, 6), totals=facts(layout="packed"))
    with pytest.raises(UserError, match="A1: weights laid out as 'stock' in one block, 'packed' in another"):
        sdtp(measured)


def test_times_of_other_documents_are_not_joined(measured):
    measured.block("prefill", (0, 6), samples=map(prefill, (0, 2, 1, 3, 4, 5)))
    with pytest.raises(UserError, match=r"digest-prefill: other documents than in .*digest-text; run"):
        sdtp(measured)


def test_blocks_of_another_experiment_are_not_joined(measured):
    measured.block("text", (2, 6), of="another")
    with pytest.raises(UserError, match=r"digest-text: blocks of another experiment; run `python -m abl"):
        sdtp(measured)


def test_a_missing_item_is_named(measured):
    (measured.series("text") / "2-6.json").unlink()
    with pytest.raises(UserError, match=r"digest-text: item 2 of 4 is not measured; run snakemake"):
        sdtp(measured)


def run(study: Study) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ablations.evidence.join", "--spec", str(study.write_spec())]
    command += ["--out", str(study.folder / "record" / "record.json"), "--label", "A9"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_job_writes_the_record_and_its_rows(measured):
    done = run(measured)
    assert (done.returncode, done.stderr) == (0, "")
    path = measured.folder / "record" / "record.json"
    record = read_record(path, SdtpRecord)
    expected, rows = sdtp(measured, "A9")
    assert record.model_copy(update={"side": None, "checksum": ""}) == expected
    assert read_rows(path, record) == rows


def test_the_job_joins_decoding_too(tmp_path):
    study = Study(tmp_path, decode_spec(code=2))
    study.block("code", (0, 2))
    assert run(study).returncode == 0
    assert read_record(tmp_path / "record" / "record.json", DecodeRecord).label == "A9"


def test_the_jobs_errors_are_one_line(measured):
    (measured.series("text") / "2-6.json").unlink()
    done = run(measured)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_joining_needs_no_torch():
    code = "import sys, ablations.evidence.join; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A row of a forward takes a second, and so on: what a replay costs can be counted.
COUNTED = Costs(
    target=TargetCosts(
        rows=(1, 10), prefixes=(5,), verify=((1.0, 10.0),), prompt_tokens=(5,), prefill=(2.0,)
    ),
    levels={"root": Line(base=0.5, unit=0.0), "first": Line(base=0.0, unit=0.25)},
    commit=Line(base=0.0, unit=0.1),
    prefill=Line(base=0.5, unit=0.1),
    bookkeeping={
        "fixed": Line(base=1.0, unit=0.0),
        "dynamic": Line(base=0.0, unit=1.0),
        "cost_aware": Line(base=0.0, unit=0.0),
    },
    stated=(0.0, 1.0),
    accepted=(0.0, 1.0),
    child=0.5,
    rate=1.0,
)


def priced_study(folder: Path, **changes: Any) -> Study:
    """Two timed prompts of each kind; three of `code` and four of `docs` are replayed."""
    study = Study(folder, drafting_spec({"code": 2, "docs": 2}, {"code": 3, "docs": 4}, **changes))
    for name in ("code", "docs"):
        study.block(name, (0, 2))
        study.block(f"replayed_{name}", (0, 4), environment(seconds=3.0))
    study.write_costs(COUNTED)
    return study


@pytest.mark.parametrize(
    ("adaptation", "bookkeeping"), [(None, 2.0), (DynamicTree(kind="dynamic"), 9.0)], ids=["fixed", "dynamic"]
)
def test_replays_have_the_prices_that_are_counted_by_hand(tmp_path, adaptation, bookkeeping):
    record, rows = decoding(priced_study(tmp_path, adaptation=adaptation))
    # Rounds of 5 and 6 rows; two roots, 2 and 3 rows of their children; 5 accepted tokens.
    rounds = 11.0 + 2 * 0.5 + 5 * 0.25 + 5 * 0.1 + bookkeeping
    expected = [("code", 0), ("code", 1), ("code", 2), ("docs", 0), ("docs", 1), ("docs", 2), ("docs", 3)]
    assert [(replay.kind, replay.document) for replay in record.totals.replays] == [
        (kind, f"p{number}") for kind, number in expected
    ]
    for replay, (kind, number) in zip(record.totals.replays, expected, strict=True):
        assert Replay(**replay.fields_of(Replay)) == replayed(number, kind)
        assert (replay.first, replay.rounds) == (pytest.approx(2.0 + 0.5 + 5 * 0.1), pytest.approx(rounds))
        # Of 8 tokens one comes with the prompt; seven have a forward of one row.
        assert (replay.reference_first, replay.reference_rounds) == (2.0, 7.0)
    assert [(sample.kind, sample.document) for sample in record.samples] == [
        ("code", "p0"),
        ("code", "p1"),
        ("docs", "p0"),
        ("docs", "p1"),
    ]
    assert [row["of"] for row in rows] == ["code", "code", "docs", "docs"]
    assert (record.module, record.environment.seconds) == ("ablations.dynatree.decode", 2 * 10.0 + 2 * 3.0)


def test_the_memory_of_replays_is_not_that_of_decoding(tmp_path):
    study = priced_study(tmp_path)
    study.block("replayed_code", (0, 4), totals=ReplayTotals(weight_layout="stock", peak_memory_bytes=9000))
    assert decoding(study)[0].totals.peak_memory_bytes == 100


@pytest.mark.parametrize(
    ("changes", "unlike"),
    [
        ([{}, {}], 0),
        ([{}, {"accepted_per_round": (3, 2)}], 1),
        ([{"drafted_per_round": (5, 4)}, {"accepted_per_round": (2, 2, 0)}], 2),
        ([{"draft_seconds": 5.0, "matched": False}, {}], 0),
    ],
)
def test_timed_prompts_of_other_rounds_than_replayed_are_counted(tmp_path, changes, unlike):
    study = priced_study(tmp_path)
    study.block("docs", (0, 2), samples=[drafted(number, "docs", **changes[number]) for number in range(2)])
    assert decoding(study)[0].totals.unlike == unlike


def test_an_autoregressive_row_has_no_replays(tmp_path):
    study = Study(tmp_path, decode_spec(code=2))
    study.block("code", (0, 2))
    totals = decoding(study)[0].totals
    assert (totals.replays, totals.unlike) == ((), 0)
    assert COSTS not in study.folders()


@pytest.mark.parametrize(("there", "item"), [(None, 0), ((0, 1), 1)])
def test_a_missing_replay_is_named(tmp_path, there, item):
    study = priced_study(tmp_path)
    (study.series("replayed_code") / "0-4.json").unlink()
    if there is not None:
        study.block("replayed_code", there)
    with pytest.raises(UserError, match=rf"digest-replayed_code: item {item} of 3 is not measured; run snak"):
        decoding(study)


def test_replays_of_other_prompts_are_not_joined(tmp_path):
    study = priced_study(tmp_path)
    study.block("replayed_docs", (0, 4), samples=[replayed(number, "docs") for number in (0, 2, 3, 4)])
    with pytest.raises(UserError, match=r"digest-replayed_docs: other prompts than in .*digest-docs; run"):
        decoding(study)


def test_replays_of_another_experiment_are_not_joined(tmp_path):
    study = priced_study(tmp_path)
    study.block("replayed_docs", (0, 4), of="another")
    with pytest.raises(UserError, match=r"digest-replayed_docs: blocks of another experiment; run `python"):
        decoding(study)


def test_replays_of_another_device_are_not_joined(tmp_path):
    study = priced_study(tmp_path)
    study.block("replayed_code", (0, 4), environment(device="Other GPU"))
    with pytest.raises(UserError, match="F1: measured on 'CPU' in one block, 'Other GPU' in another"):
        decoding(study)


def test_replays_without_costs_are_not_joined(tmp_path):
    study = priced_study(tmp_path)
    manifest = study.folders()[COSTS]
    (manifest.parent / COSTS_FILE).write_text("{}")
    with pytest.raises(UserError, match=rf"{COSTS_FILE}: its SHA-256 is not the one in manifest.json"):
        decoding(study)
    manifest.unlink()
    with pytest.raises(UserError, match=r"manifest.json: no such file; run snakemake to build it"):
        decoding(study)


def test_a_crash_of_a_replay_is_the_record(tmp_path):
    study = priced_study(tmp_path)
    study.crash("replayed_docs", 3, "of replays")
    record, _ = decoding(study)
    assert (record.outcome.message, record.samples, record.totals) == ("of replays", (), None)


def test_the_job_joins_replays_too(tmp_path):
    study = priced_study(tmp_path)
    done = run(study)
    assert (done.returncode, done.stderr) == (0, "")
    totals = read_record(tmp_path / "record" / "record.json", DecodeRecord).totals
    assert totals == decoding(study)[0].totals
    assert isinstance(totals.replays[0], PricedReplay)
