"""Several studies side by side."""

from pathlib import Path

import pytest

from ablations.core.errors import UserError
from ablations.paper.join import joined, render_joined
from ablations.paper.numbers import all_quantities

TEMPLATES = Path(__file__).parents[2] / "paper/templates"


def test_a_column_for_each_study(study):
    """The second study has another model, and lacks one experiment."""
    rows = tuple(row for row in study.summary.rows if row.id != "A7")
    models = {**study.summary.models, "sdtp": "Another-LM"}
    other = study.summary.model_copy(update={"rows": rows, "models": models})
    numbers = {item.name: item for item in all_quantities(study.summary)}
    found = {name: cells for name, _, cells in joined([study.summary, other], "sdtp")}
    assert found["A2"] == [[numbers["A2.text_effect"], None]] * 2
    assert found["A7"] == [[numbers["A7.text_effect"], numbers["A7.speedup"]], [None, None]]
    text = render_joined([study.summary, other], "sdtp", TEMPLATES)
    assert "Tiny-LM (random weights)" in text
    assert "Another-LM" in text
    (line,) = [line for line in text.splitlines() if line.strip().startswith("A7 &")]
    assert line.count("---") == 2
    assert numbers["A7.text_effect"].text in line
    decoding = render_joined([study.summary], "dynatree", TEMPLATES)
    assert numbers["F4.throughput"].text in decoding
    assert "A7 &" not in decoding


def test_a_method_that_no_study_has(study):
    rows = tuple(row for row in study.summary.rows if row.method == "sdtp")
    alone = study.summary.model_copy(update={"rows": rows})
    with pytest.raises(UserError, match="no experiment of 'dynatree' in these summaries"):
        joined([alone], "dynatree")
