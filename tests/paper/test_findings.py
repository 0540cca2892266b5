"""The last words of a run count the decided predictions, and name each confirmatory one once."""

import re

from ablations.paper.findings import findings


def test_every_confirmatory_prediction_stands_under_its_outcome(render):
    summary = render(crashed=("A6",)).summary
    first, *lines, clocks = findings(summary).splitlines()
    parts = [part for row in summary.rows for part in row.parts if part.kind == "confirmatory"]
    resolved = [part for part in parts if part.outcome not in (None, "not_resolved")]
    assert first == f"{len(resolved)} of {len(parts)} confirmatory predictions decided."
    paragraphs = re.findall(r"^  (\w[\w ]*?) +(\d+)  (.*(?:\n {10,}.*)*)$", "\n".join(lines), re.MULTILINE)
    found = [(name, outcome) for outcome, _, names in paragraphs for name in names.split()]
    assert sorted(found) == sorted(
        (f"{part.experiment}.{part.aspect}", (part.outcome or "not tested").replace("_", " "))
        for part in parts
    )
    assert [int(count) for _, count, _ in paragraphs] == [len(names.split()) for *_, names in paragraphs]
    assert max(map(len, lines)) <= 88
    alone = next(row.decoding for row in summary.rows if row.decoding and row.decoding.autoregressive)
    assert clocks == (
        f"Clocks: {1000 * alone.token_seconds:.1f} ms an autoregressive token,"
        f" {summary.row('baseline').sdtp.reference_seconds:.2f} s an unpruned prefill of"
        f" {summary.sdtp.prompt_tokens} tokens."
    )


def test_a_study_of_one_method_has_one_clock(render):
    summary = render().summary
    kept = tuple(row for row in summary.rows if row.method == "sdtp")
    assert "autoregressive token" not in findings(summary.model_copy(update={"rows": kept}))
    assert "Clocks" not in findings(summary.model_copy(update={"rows": ()}))
