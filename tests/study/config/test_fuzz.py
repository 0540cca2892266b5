"""Whatever is wrong with a configuration, one line names the key; what is right is planned.

What is wrong is told by another program than the one under test: `jsonschema` with the exported schema.
"""

import copy
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ablations.core.errors import UserError
from ablations.study.config.dynatree import DynatreeBaseline
from ablations.study.config.sdtp import SdtpBaseline
from ablations.study.config.study import StudyConfig
from ablations.study.planning import plan as planning
from ablations.study.planning.digests import CodeIndex
from ablations.study.planning.plan import Plan
from tests.study.config.mutations import ODD, ROOT, at, changed, complete_study, mutants, places, removed

COMPLETE = complete_study()
PLACES = [*places(COMPLETE)]
WORDING = ("title", "hypothesis", "step", "description", "study", "section")

SCHEMA = Draft202012Validator(StudyConfig.model_json_schema())
CHANGES = {
    "sdtp": Draft202012Validator(SdtpBaseline.model_json_schema()),
    "dynatree": Draft202012Validator(DynatreeBaseline.model_json_schema()),
}

QUICK = 120
# More cases, and others each time, where time is no matter.
CASES = pytest.mark.parametrize("cases", [QUICK, pytest.param(3000, marks=pytest.mark.long)])

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture(scope="module", autouse=True)
def one_code_index():
    """The source does not change between the cases, so its import graph is built once."""
    index = CodeIndex()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "CodeIndex", lambda: index)
        yield


def fuzzing(cases: int):
    return settings(
        max_examples=cases,
        derandomize=cases <= QUICK,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def wrong(raw: Any) -> bool:
    """Whether `raw` breaks the exported schema, or a rule that JSON Schema cannot state."""
    if not SCHEMA.is_valid(raw) or [*unwritable(raw)]:
        return True
    return any(
        not CHANGES[method].is_valid(inherited(raw[method], name))
        for method in CHANGES
        for name in raw[method]["ablations"]
    )


def inherited(study: dict[str, Any], name: str | None) -> Any:
    """Component groups of an experiment; those of the baseline where `name` is none."""
    ablation = study["ablations"].get(name)
    if ablation is None:
        return study.get("baseline", {})
    return merged(inherited(study, ablation.get("from")), ablation["change"])


def unwritable(node: Any) -> Iterator[Any]:
    """Numbers that are none, text that UTF-8 cannot write, keys that are no strings."""
    if isinstance(node, float) and not math.isfinite(node):
        yield node
    if isinstance(node, str) and "\ud800" in node:
        yield node
    if isinstance(node, dict):
        yield from (key for key in node if not isinstance(key, str))
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from unwritable(inner)


def merged(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}


def problem(raw: dict[str, Any]) -> str | None:
    """The one line that refuses `raw`; None where it is planned. Any other exception is a failure."""
    try:
        found = Plan(copy.deepcopy(raw), ROOT)
    except UserError as error:
        return str(error)
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in found.jobs)
    return None


def check(raw: dict[str, Any], path: tuple[str | int, ...], slip: str) -> str | None:
    """A wrong study is refused; whatever is refused is refused in one line that names the place."""
    line = problem(raw)
    case = f"{'.'.join(map(str, path))} {slip}"
    if line is None:
        assert not wrong(raw), f"{case}: accepted against the schema"
        return None
    assert "\n" not in line, f"{case}: {line}"
    key, _, why = line.partition(": ")
    assert why, f"{case}: {line}"
    named, meant = key.removeprefix("config").split("."), [str(part) for part in path]
    keys = [part for part in path[-2:] if isinstance(part, str)]
    shared = min(len(named), len(meant))
    about = named[:shared] == meant[:shared] and len(named) >= len(meant) - 1
    about = about or (named == [""] and len(meant) == 1)
    # A cross-check may name another key, and then says what it does not go together with.
    assert about or any(key in line for key in keys), f"{case}: {line}"
    return line


def test_the_complete_study_is_planned_and_has_hundreds_of_keys():
    assert problem(COMPLETE) is None
    assert not wrong(COMPLETE)
    assert len(PLACES) > 700


@CASES
def test_any_slip_at_any_key_is_named_or_planned(cases):
    @fuzzing(cases)
    @given(place=st.sampled_from(PLACES), data=st.data())
    def slips(place, data):
        slip, mutant = data.draw(st.sampled_from([*mutants(COMPLETE, place)]), label="slip")
        check(mutant(), place, slip)

    slips()


# YAML reads `1e-3` as text, so text that is a number counts as one; the schema knows nothing of that.
TEXT = st.text(max_size=20).filter(lambda text: not re.search(r"^\s*[-+]?[\d.]", text))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@CASES
def test_any_value_at_any_key_is_named_or_planned(cases):
    @fuzzing(cases)
    @given(place=st.sampled_from(PLACES), value=JSON)
    def values(place, value):
        check(changed(COMPLETE, place, value), place, f"= {value!r}")

    values()


@CASES
def test_wording_may_be_anything_and_names_no_result(cases):
    records = Plan(COMPLETE, ROOT).records
    wordings = [place for place in PLACES if place[-1] in WORDING]

    @fuzzing(cases // 4)
    @given(place=st.sampled_from(wordings), text=st.sampled_from(ODD[:-1]) | st.text(min_size=1))
    def reworded(place, text):
        if not text.strip() and place[-1] == "section":
            text = "mine"
        assert Plan(changed(COMPLETE, place, text), ROOT).records == records

    reworded()


@pytest.mark.long
def test_every_slip_at_every_key():
    """All of them, at least five to a key; nothing is written for a study that is refused."""
    refused = accepted = 0
    for place in PLACES:
        slips = [*mutants(COMPLETE, place)]
        assert len(slips) >= 5
        for slip, mutant in slips:
            if check(mutant(), place, slip) is None:
                accepted += 1
            else:
                refused += 1
    assert refused + accepted > 2000
    print(f"{refused} refused, {accepted} planned, of {len(PLACES)} keys")


@pytest.mark.parametrize("place", [("models",), ("sdtp", "evaluation", "documents"), ("dynatree", "target")])
def test_a_required_key_cannot_be_left_out(place):
    assert (
        check(removed(COMPLETE, place), place, "removed")
        == f"{'.'.join(place)}: missing; this key is required"
    )


def test_a_truth_value_is_no_number():
    place = ("sdtp", "evaluation", "prompt_tokens")
    assert at(COMPLETE, place) != 1
    assert problem(changed(COMPLETE, place, True)).startswith("sdtp.evaluation.prompt_tokens: ")
