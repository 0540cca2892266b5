"""What the documentation of the paper lists is what the paper has."""

import re
from pathlib import Path

from ablations.paper.numbers import all_quantities

DOCS = re.sub(r"(?s)```.*?```", "", (Path(__file__).parents[2] / "docs/paper.md").read_text())


def test_every_label_is_listed(whole):
    tables = "".join(path.read_text() for path in whole.tables.iterdir())
    labels = set(re.findall(r"\\label\{([^}]+)\}", whole.section + tables))
    listed = set(re.findall(r"`((?:sec|tab|fig):[a-z-]+)`", DOCS))
    assert labels - {"sec:ablation-my-own"} <= listed
    # A study without saliency tables, further rows or a published setting has no label for them.
    assert listed - labels <= {
        *("fig:saliency", "tab:ablation-further", "sec:ablation-", "sec:ablation-published"),
    }


def test_every_kind_of_number_is_listed(whole):
    listed = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`]+)`", DOCS))))
    # Some name what they are against after a full stop.
    named = (re.sub(r"^(decided|against)\..*", r"\1", item.measure) for item in all_quantities(whole.summary))
    measures = {part for name in named for part in name.split(".")}
    assert {measure.removesuffix("_untrained") for measure in measures} <= listed
