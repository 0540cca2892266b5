"""The names of blocks say what of a series is measured, and blocks of any cut give the same items."""

import pytest

from ablations.core.block import cover, missing, read_series
from ablations.core.errors import UserError
from tests.core.series import Number, NumberBlock, write_block, write_crash


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def values(joined):
    assert [row["number"] for row in joined.rows] == [sample.value for sample in joined.samples]
    return [sample.value for sample in joined.samples]


def test_names_of_files_say_what_is_measured(tmp_path):
    folder = tmp_path / "series"
    assert cover(folder) == ((), None)
    touch(folder, "10-20.json", "0-10.json", "5-8.json", "100-110.json")
    assert cover(folder) == (((0, 10), (5, 8), (10, 20), (100, 110)), None)
    touch(folder, "30-crashed.json", "25-crashed.json")
    assert cover(folder).crashed == 25
    assert len(cover(folder).spans) == 4


def test_what_is_not_a_block_is_not_counted(tmp_path):
    folder = tmp_path / "series"
    touch(
        folder,
        "0-10.rows.jsonl",
        ".0-10.json.ab12.tmp",
        "x-10.json",
        "0-10.json.bak",
        "10.json",
        "crashed.json",
    )
    assert cover(folder) == ((), None)


@pytest.mark.parametrize(
    ("names", "count", "expected"),
    [
        ((), 25, ((0, 10), (10, 20), (20, 25))),
        (("0-10.json",), 10, ()),
        (("0-10.json",), 7, ()),
        (("0-10.json",), 25, ((10, 20), (20, 25))),
        # A budget of 25, raised to 40: the block that was cut short is continued up to the next multiple.
        (("0-10.json", "10-20.json", "20-25.json"), 40, ((25, 30), (30, 40))),
        # Gaps, one of them within a block of this size.
        (("0-3.json", "6-10.json", "20-30.json"), 32, ((3, 6), (10, 20), (30, 32))),
        # Measured when blocks had 7 documents.
        (("0-7.json", "7-14.json"), 21, ((14, 20), (20, 21))),
        # One in the middle of a block, with a gap on either side.
        (("4-5.json",), 10, ((0, 4), (5, 10))),
        # Crashed on an item that is asked for: it does not go on. One beyond them does not matter.
        (("0-5.json", "5-crashed.json"), 10, ()),
        (("5-crashed.json",), 6, ()),
        (("0-5.json", "5-crashed.json"), 5, ()),
        (("5-crashed.json",), 5, ((0, 5),)),
    ],
)
def test_missing_spans_are_those_that_no_block_holds(tmp_path, names, count, expected):
    touch(tmp_path / "series", *names)
    assert missing(tmp_path / "series", count, 10) == expected


def test_blocks_of_any_cut_give_the_same_items(tmp_path):
    cuts = {
        "one": [(0, 20)],
        "two": [(0, 10), (10, 20)],
        "uneven": [(0, 7), (7, 8), (8, 30)],
        "overlapping": [(0, 10), (0, 15), (5, 12), (12, 20)],
    }
    for name, spans in cuts.items():
        for span in spans:
            write_block(tmp_path / name, span)
        for count in (1, 7, 10, 13, 20):
            assert values(read_series(tmp_path / name, count, NumberBlock)) == list(range(count))


def test_only_the_blocks_that_are_needed_are_read(tmp_path):
    for span in ((0, 10), (5, 8), (10, 20), (20, 30)):
        write_block(tmp_path, span)
    # Within another block, and beyond what is asked for.
    for name in ("5-8.json", "20-30.json"):
        (tmp_path / name).write_text("damaged")
    joined = read_series(tmp_path, 20, NumberBlock)
    assert [len(block.samples) for block in joined.blocks] == [10, 10]
    assert not joined.crashed


def test_blocks_without_bulky_rows_have_none(tmp_path):
    write_block(tmp_path, (0, 10), rows=False)
    joined = read_series(tmp_path, 5, NumberBlock)
    assert (len(joined.samples), joined.rows) == (5, ())


def test_a_crash_is_the_result_of_all_items_from_there_on(tmp_path):
    write_block(tmp_path, (0, 10))
    write_crash(tmp_path, 12)
    joined = read_series(tmp_path, 20, NumberBlock)
    assert joined.crashed
    assert (joined.samples, joined.rows) == ((), ())
    assert joined.blocks[0].outcome.exception == "ValueError"
    assert not read_series(tmp_path, 10, NumberBlock).crashed
    with pytest.raises(UserError, match=r"item 10 of 12 is not measured; run snakemake"):
        read_series(tmp_path, 12, NumberBlock)


@pytest.mark.parametrize("spans", [[], [(1, 20)], [(0, 9), (10, 20)], [(0, 10), (10, 19)]])
def test_a_gap_is_an_error_that_names_the_first_item(tmp_path, spans):
    for span in spans:
        write_block(tmp_path, span)
    first = next(n for n in range(21) if not any(start <= n < end for start, end in spans))
    with pytest.raises(UserError, match=rf"{tmp_path.name}: item {first} of 20 is not measured"):
        read_series(tmp_path, 20, NumberBlock)


def test_an_edited_block_is_refused(tmp_path):
    path = write_block(tmp_path, (0, 3))
    path.write_text(path.read_text().replace('"value": 1.0', '"value": 1.5'))
    with pytest.raises(UserError, match=r"0-3\.json: edited after it was measured; delete it"):
        read_series(tmp_path, 3, NumberBlock)


def test_a_block_with_another_number_of_items_than_its_name_says_is_refused(tmp_path):
    write_block(tmp_path, (0, 3)).rename(tmp_path / "0-4.json")
    with pytest.raises(UserError, match=r"0-4\.json: not 4 samples; delete it and run snakemake again"):
        read_series(tmp_path, 4, NumberBlock)
    write_block(tmp_path / "short", (0, 3), samples=(Number(value=0), Number(value=1)))
    with pytest.raises(UserError, match=r"0-3\.json: not 3 samples"):
        read_series(tmp_path / "short", 2, NumberBlock)


def test_a_side_file_that_is_gone_or_edited_is_refused(tmp_path):
    path = write_block(tmp_path, (0, 3))
    side = path.with_suffix(".rows.jsonl")
    side.write_text(side.read_text() + "\n")
    for _ in range(2):
        with pytest.raises(UserError, match=r"0-3\.rows\.jsonl: missing or edited; delete .*0-3\.json"):
            read_series(tmp_path, 3, NumberBlock)
        side.unlink(missing_ok=True)
