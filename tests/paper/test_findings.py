"""The last words of a run count each hypothesis once, under its verdict."""

import re

from ablations.paper.findings import findings


def test_every_hypothesis_stands_under_its_verdict(whole):
    shown = findings(whole.summary)
    first, *lines = shown.splitlines()
    tested = [row for row in whole.summary.rows if row.hypothesis]
    assert first == f"Study {whole.summary.study}: {len(tested)} hypotheses."
    paragraphs = re.findall(r"^  (\w[\w ]*?) +(\d+)  (.*(?:\n {10,}.*)*)$", "\n".join(lines), re.MULTILINE)
    found = {verdict.replace(" ", "_"): ids.split() for verdict, _, ids in paragraphs}
    assert {name: verdict for verdict, ids in found.items() for name in ids} == {
        row.id: row.verdict for row in tested
    }
    assert [int(count) for _, count, _ in paragraphs] == [len(ids.split()) for *_, ids in paragraphs]
    assert max(map(len, lines)) <= 88
