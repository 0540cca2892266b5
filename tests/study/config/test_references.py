"""Names that refer to another section of the configuration."""

import copy
import re
from functools import reduce
from pathlib import Path

import pytest
import yaml

from ablations.core.errors import UserError
from ablations.study.config.validation import load_study

ROOT = Path(__file__).parents[3]
NEURAL = {"kind": "neural", "model": "smollm2"}


@pytest.fixture(scope="module")
def complete():
    """The default study with a drafter of every kind that refers to something."""
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    raw["dynatree"]["drafters"]["neural"] = NEURAL
    raw["sdtp"]["saliency"]["text"] = "written"
    raw["dynatree"]["drafters"]["distilled"]["text"] = "written"
    return raw


def problem(raw, key, value):
    """The error after setting a key, which is there, to another value."""
    broken = copy.deepcopy(raw)
    *path, last = key.split(".")
    place = reduce(dict.__getitem__, path, broken)
    assert last in place
    place[last] = value
    with pytest.raises(UserError) as caught:
        load_study(broken)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("sdtp.model", "models"),
        ("sdtp.text", "texts"),
        ("sdtp.saliency.text", "texts"),
        ("dynatree.target", "models"),
        ("dynatree.prompts.code.text", "texts"),
        ("dynatree.calibration.prompts.chat.text", "texts"),
        ("dynatree.drafters.ngram.texts", "texts"),
        ("dynatree.drafters.neural.model", "models"),
        ("dynatree.drafters.distilled.text", "texts"),
        ("dynatree.drafters.hybrid.distilled", "dynatree.drafters of kind 'distilled'"),
        ("dynatree.drafters.hybrid.ngram", "dynatree.drafters of kind 'ngram'"),
        ("dynatree.baseline.drafter", "dynatree.drafters"),
        ("dynatree.benchmark.best_of", "dynatree.ablations"),
        ("paper.main", "sdtp.ablations"),
        ("paper.full_method", "dynatree.ablations"),
    ],
)
def test_a_name_that_a_section_has_not_is_named(complete, key, section):
    listed = key.endswith(("texts", "best_of", "main"))
    if key.startswith("paper"):
        complete = {**complete, "paper": {"main": [], "full_method": "F4"} | complete.get("paper", {})}
    found = problem(complete, key, ["nobody9"] if listed else "nobody9")
    assert re.match(rf"{re.escape(key)}: 'nobody9' is not in {re.escape(section)}; (allowed|did)", found)


def test_of_the_wrong_kind_is_not_there(complete):
    assert problem(complete, "dynatree.drafters.hybrid.distilled", "ngram") == (
        "dynatree.drafters.hybrid.distilled: 'ngram' is not in dynatree.drafters of kind 'distilled';"
        " allowed: distilled"
    )


def test_null_refers_to_nothing(complete):
    raw = copy.deepcopy(complete)
    raw["sdtp"]["saliency"]["text"] = None
    raw["dynatree"]["baseline"]["drafter"] = None
    load_study(raw)
