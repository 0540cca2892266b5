"""A member of a panel writes whole blocks, ends alone, and says what it works on."""

import json
import time

import pytest

from ablations.core.block import cover, read_series
from ablations.core.errors import UserError
from ablations.core.job import JobFile, Run
from ablations.core.panel import REPORT, Member, Panel, open_panel, read_panel
from ablations.core.record import Outcome, read_record
from tests.core.series import (
    Count,
    Number,
    NumberBlock,
    NumberSpec,
    environment,
    write_block,
    write_crash,
    write_panel,
)

CRASH = Outcome(status="crashed", exception="ValueError", message="no", place="f in m")


def make_member(folder, *spans, digest="a") -> Member:
    job = JobFile[NumberSpec](digest=digest, module="m", spec=NumberSpec(), spec_digest="s", code_digest="c")
    member = Member(Run(job, folder / digest, digest.upper()), spans)
    added = []
    member.describes(NumberBlock, environment, lambda: Count(items=len(added)))
    member.added = added
    return member


def add(member, *numbers):
    for number in numbers:
        member.added.append(number)
        member.add(number, Number(value=number), {"number": number})


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """Reads what was reported."""
    monkeypatch.setenv(REPORT, str(tmp_path / "report.jsonl"))

    def read():
        content = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
        processes = {line.pop("process") for line in content}
        assert len(processes) == 1
        return content

    return read


def test_a_block_is_written_once_all_its_items_are_there(tmp_path):
    member = make_member(tmp_path, (10, 13), (20, 22))
    assert member.wanted() == [10, 11, 12, 20, 21]
    add(member, 12, 20, 10)
    assert cover(member.run.out).spans == ()
    assert member.wanted() == [11, 21]
    add(member, 11)
    assert cover(member.run.out).spans == ((10, 13),)
    assert member.wanted() == [21]
    add(member, 21)
    assert cover(member.run.out).spans == ((10, 13), (20, 22))
    assert member.wanted() == []
    block = read_record(member.run.out / "10-13.json", NumberBlock)
    assert [sample.value for sample in block.samples] == [10, 11, 12], "in order, not as they came"
    assert block.totals.items == 4, "facts of the time at which it was written"
    assert (block.label, block.digests.job) == ("A", "a")
    rows = (tmp_path / "a" / "10-13.rows.jsonl").read_text().splitlines()
    assert [json.loads(row)["number"] for row in rows] == [10, 11, 12]


def test_items_of_blocks_that_appeared_meanwhile_are_not_wanted(tmp_path):
    member = make_member(tmp_path, (0, 3), (3, 6), (6, 9))
    write_block(member.run.out, (3, 6))
    assert member.wanted() == [0, 1, 2, 6, 7, 8]
    # A part of a block does not help: the block is written whole.
    write_block(member.run.out, (0, 2))
    assert member.wanted() == [0, 1, 2, 6, 7, 8]
    add(member, *member.wanted())
    assert member.wanted() == []
    assert len(read_series(member.run.out, 9, NumberBlock).samples) == 9


def test_after_a_crash_of_another_process_nothing_beyond_it_is_wanted(tmp_path):
    member = make_member(tmp_path, (0, 3), (3, 6), (6, 9))
    write_crash(member.run.out, 4)
    assert member.wanted() == [0, 1, 2]


def test_a_crash_keeps_what_was_measured_before_it(tmp_path):
    member = make_member(tmp_path, (0, 5), (5, 10))
    add(member, *range(7))
    member.crash(7, CRASH)
    assert cover(member.run.out) == (((0, 5), (5, 7)), 7)
    assert not member.active
    assert member.failure is None, "a result, not an error"
    assert member.wanted() == []
    assert len(read_series(member.run.out, 7, NumberBlock).samples) == 7
    joined = read_series(member.run.out, 10, NumberBlock)
    assert joined.crashed
    assert joined.blocks[0].totals is None


def test_a_crash_on_the_first_item_of_a_block_has_no_block_before_it(tmp_path):
    member = make_member(tmp_path, (5, 10))
    member.crash(5, CRASH)
    assert cover(member.run.out) == ((), 5)


def test_an_error_of_its_own_ends_a_member_alone(tmp_path, lines, capsys):
    panel = Panel([make_member(tmp_path, (0, 2), digest=digest) for digest in "ab"])
    first, second = panel.members
    with first.at_work():
        add(first, 0)
        raise UserError("its artefact\nis missing")
    with second.at_work():
        add(second, 0, 1)
    assert panel.active == [second]
    assert first.failure == "its artefact is missing"
    assert first.wanted() == []
    assert not first.run.out.exists()
    assert cover(second.run.out).spans == ((0, 2),)
    assert capsys.readouterr().err == "error: A: its artefact is missing\n"
    assert lines() == [
        {"at": "a"},
        {"failed": "a", "message": "its artefact is missing"},
        {"at": None},
        {"at": "b"},
        {"at": None},
    ]


def test_a_result_that_breaks_its_contract_ends_a_member_alone(tmp_path):
    member = make_member(tmp_path, (0, 1))
    with member.at_work():
        member.add(0, Number.model_construct(value=float("nan")))
    assert member.failure is not None
    assert "the result breaks its contract: samples.0.value" in member.failure
    assert not list(tmp_path.rglob("*.json"))


def test_another_exception_leaves_the_member_at_work(tmp_path, lines):
    member = make_member(tmp_path, (0, 2))
    with pytest.raises(ZeroDivisionError), member.at_work():
        raise ZeroDivisionError
    assert lines() == [{"at": "a"}]


def test_a_block_has_the_seconds_at_work_since_the_one_before_it(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    member = make_member(tmp_path, (0, 2), (2, 3))
    with member.at_work():
        now += 1
        add(member, 0)
        now += 2
    # Work on others.
    now += 100
    with member.at_work():
        now += 4
        add(member, 1)
        now += 8
        add(member, 2)
        now += 16
    seconds = [
        read_record(tmp_path / "a" / f"{name}.json", NumberBlock).environment.seconds
        for name in ("0-2", "2-3")
    ]
    assert seconds == [7, 8]


def test_the_clock_of_a_job_without_blocks_starts_with_its_work(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    member = make_member(tmp_path)
    now += 100
    with member.at_work():
        now += 3
        assert member.run.seconds == 3
        assert (member.run.out, member.run.label) == (tmp_path / "a", "A")


def test_jobs_without_blocks_are_due_until_their_result_is_there(tmp_path):
    panel = Panel([make_member(tmp_path, digest=digest) for digest in "abcd"])
    (tmp_path / "b").touch()
    done = []
    for member in panel.due():
        with member.at_work():
            done.append(member.label)
            # Meanwhile another process writes this one.
            (tmp_path / "d").touch()
            raise UserError("no")
    assert done == ["A", "C"]
    assert list(panel.due()) == []


def test_a_panel_opens_the_entries_that_are_asked_for(tmp_path):
    path = write_panel(tmp_path, {"a": [(0, 2)], "b": [(4, 6), (8, 9)], "c": [(0, 1)]})

    def opened(only=(), without=()):
        return [member.label for member in open_panel(path, NumberSpec, only, without).members]

    assert opened() == ["A", "B", "C"]
    assert opened(without=["a", "c"]) == ["B"]
    assert opened(only=["c"]) == ["C"]
    assert opened(only=["a", "b"], without=["a"]) == ["B"]
    (member,) = open_panel(path, NumberSpec, ["b"], []).members
    assert member.spec.name == "b"
    assert member.run.out == tmp_path / "block" / "b"
    assert member.wanted() == [4, 5, 8]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such panel; run snakemake"),
        ("{", "not a panel"),
        ('{"rule": "r", "module": "m", "entries": []}', r"not a panel \(entries: .*at least 1 item"),
    ],
)
def test_a_damaged_panel_is_one_line(tmp_path, content, complaint):
    path = tmp_path / "p.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"p\.json: {complaint}") as caught:
        read_panel(path)
    assert "\n" not in str(caught.value)


def test_a_panel_refuses_code_and_versions_other_than_planned(tmp_path):
    path = write_panel(tmp_path, {"a": [(0, 2)]})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "c.json").write_text(json.dumps({"ablations.core.errors": "another"}))
    with pytest.raises(UserError, match=r"ablations\.core\.errors: edited after this job was planned"):
        open_panel(path, NumberSpec, [], [])
    (tmp_path / "code" / "c.json").unlink()
    spec = tmp_path / "spec" / "a.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"pins": {"numpy": "0.0.1"}}))
    with pytest.raises(UserError, match=r"pins numpy==0\.0\.1"):
        open_panel(path, NumberSpec, [], [])
