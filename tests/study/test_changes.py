"""What an experiment inherits, what it is compared with, and how many component groups tell the two apart."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.core.errors import UserError
from ablations.study.config.changes import BASELINE
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def raw():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def decoding(raw, name, **keys):
    """Set keys of a decoding experiment; a new one gets what is required."""
    new = {"title": name, "section": "mine", "change": {}}
    raw["dynatree"]["ablations"].setdefault(name, new).update(keys)


def experiment(raw, name):
    return Plan(raw, ROOT).row(name).experiment


def problem(raw):
    with pytest.raises(UserError) as caught:
        Plan(raw, ROOT)
    return str(caught.value)


def test_an_experiment_inherits_a_whole_chain_of_changes(raw):
    raw["dynatree"]["ablations"]["E1"]["change"] = {"shape": {"depth": 4, "branching": 3}}
    found = experiment(raw, "E3")
    assert found.versus == "E2"
    assert found.change == {
        "shape": {"depth": 4, "branching": 3},
        "adaptation": {"kind": "dynamic", "history": {}},
    }
    spec = Plan(raw, ROOT).row("E3").jobs[0].spec
    assert (spec.shape.depth, spec.shape.branching, spec.pruning.tau) == (4, 3, 0.05)
    assert spec.adaptation.history is not None


def test_an_experiment_may_come_before_what_it_starts_from(raw):
    ablations = raw["dynatree"]["ablations"]
    raw["dynatree"]["ablations"] = dict(reversed(ablations.items()))
    rows = [row.experiment for row in Plan(raw, ROOT).rows if row.experiment.method == "dynatree"]
    assert [row.id for row in rows] == [*reversed(ablations)]
    assert next(row.change for row in rows if row.id == "F2b")["shape"]["depth"] == 7


def test_what_is_inherited_may_as_well_be_written_out(raw):
    plan = Plan(copy.deepcopy(raw), ROOT)
    heirs = [
        (row.experiment, ablation)
        for row in plan.rows
        if (ablation := raw[row.experiment.method]["ablations"].get(row.experiment.id, {})).pop("from", None)
    ]
    for found, ablation in heirs:
        ablation |= {"versus": found.versus, "change": copy.deepcopy(found.change)}
    assert len(heirs) > 10
    assert [row.experiment for row in Plan(raw, ROOT).rows] == [row.experiment for row in plan.rows]


def test_a_budget_is_not_inherited(raw):
    decoding(raw, "X", **{"from": "K2"})
    plan = Plan(raw, ROOT)
    assert plan.row("K2").experiment.budget == {"prompts": 2}
    assert plan.row("X").experiment.budget == {}


@pytest.mark.parametrize("keys", [{}, {"from": BASELINE}, {"versus": BASELINE}, {"from": None}])
def test_pruning_starts_from_the_baseline_and_is_compared_with_it(raw, keys):
    expected = experiment(copy.deepcopy(raw), "A7")
    raw["sdtp"]["ablations"]["A7"] |= keys
    assert experiment(raw, "A7") == expected
    assert expected.versus == BASELINE


def test_decoding_is_compared_with_nothing_unless_it_says_so(raw):
    assert experiment(raw, "E1").versus is None


def test_null_in_an_overlay_ends_an_inheritance(raw):
    update_config(raw, {"dynatree": {"ablations": {"D1": {"from": None, "versus": "F3", "compound": True}}}})
    found = experiment(raw, "D1")
    assert (found.versus, found.change) == ("F3", {"shape": {"depth": 1}})


@pytest.mark.parametrize("origin", [None, "X"])
def test_a_change_of_kind_takes_no_keys_of_the_kind_before(raw, origin):
    """Neither the baseline's nor those of an experiment that leaves the kind as it is."""
    raw["dynatree"]["baseline"]["adaptation"] = {"kind": "dynamic", "max_depth": 9}
    raw["dynatree"]["only"] = ["X", "Y"]
    raw["paper"]["confirmatory"]["dynatree"] = []
    decoding(raw, "X", change={"adaptation": {"rho_stop": 0.2}})
    decoding(raw, "Y", change={"adaptation": {"kind": "cost_aware"}}, **{"from": origin})
    row = Plan(raw, ROOT).row("Y")
    assert row.jobs[0].spec.adaptation.kind == "cost_aware"
    assert row.experiment.change == {"adaptation": {"kind": "cost_aware"}}


@pytest.mark.parametrize(
    ("name", "origin", "length"), [("D1", "D1", 1), ("E1", "E2", 2), ("E1", "E3", 3), ("A7", "A7", 1)]
)
def test_a_circle_is_told_key_by_key(raw, name, origin, length):
    method = "sdtp" if name in raw["sdtp"]["ablations"] else "dynatree"
    ablations = raw[method]["ablations"]
    ablations[name]["from"] = origin
    key, told, end = re.fullmatch(r"(\S+)\.from: a circle \((.+)\)(; .+)", problem(raw)).groups()
    chain = told.split(" from ")
    assert key == f"{method}.ablations.{chain[0]}"
    assert [ablations[one]["from"] for one in chain[:-1]] == chain[1:]
    assert chain[0] == chain[-1]
    assert len(chain) == length + 1
    assert end == "; take 'from' out of one"


@pytest.mark.parametrize(
    ("method", "name", "origin", "only", "expected"),
    [
        ("dynatree", "D1", "F44", None, "dynatree.ablations; did you mean 'F4'?"),
        ("dynatree", "D1", "F4", ["F1", "D1"], "dynatree.only; allowed: F1, D1"),
        ("dynatree", "D1", BASELINE, None, "dynatree.ablations; allowed: F1"),
        ("dynatree", "D1", "G0", None, "dynatree.ablations; allowed: F1"),
        ("sdtp", "A7", "A77", None, "sdtp.ablations; did you mean 'A7'?"),
        ("sdtp", "G0", "GB", ["A7", "G0"], "sdtp.only; allowed: A7, G0, baseline"),
    ],
)
def test_an_unknown_origin_is_named(raw, method, name, origin, only, expected):
    raw[method]["only"] = only
    raw[method]["ablations"][name] |= {"from": origin, "expect": {}}
    assert problem(raw).startswith(f"{method}.ablations.{name}.from: {origin!r} is not in {expected}")


def test_an_experiment_starts_from_what_it_is_compared_with_or_says_versus(raw):
    raw["dynatree"]["ablations"]["D1"]["versus"] = "F3"
    assert problem(raw) == (
        "dynatree.ablations.D1: 'from' and 'versus' both say what it is compared with; leave one out"
        " (in an overlay by null)"
    )


def test_two_component_groups_need_compound(raw):
    ablation = raw["sdtp"]["ablations"]["A7"]
    ablation["change"]["importance"] = "random"
    assert problem(raw) == (
        "sdtp.ablations.A7.change: differs from the baseline in 2 component groups (importance, schedule);"
        " isolate one, or say compound: true"
    )
    ablation["compound"] = True
    assert Plan(raw, ROOT).row("A7").jobs[0].spec.importance == "random"


def test_groups_are_counted_against_the_comparator(raw):
    """Two groups that are not the baseline's need no flag where one of them is the comparator's."""
    f2c = experiment(raw, "F2c")
    assert len(f2c.change) == 2
    assert "compound" not in raw["dynatree"]["ablations"]["F2c"]
    decoding(raw, "F4", versus="F2b")
    assert problem(raw) == (
        "dynatree.ablations.F4.change: differs from F2b in 2 component groups (shape, pruning);"
        " isolate one, or say compound: true"
    )


def test_an_heir_is_counted_against_what_it_starts_from(raw):
    assert len(experiment(raw, "N4").change) == 2
    raw["dynatree"]["ablations"]["N4"]["change"]["pruning"] = {"tau": 0.1}
    assert problem(raw).startswith(
        "dynatree.ablations.N4.change: differs from N3 in 2 component groups (shape, pruning);"
    )


def test_decoding_that_is_compared_with_nothing_is_counted_against_the_baseline(raw):
    raw["dynatree"]["ablations"]["E1"]["change"]["pruning"] = {"tau": 0.1}
    assert problem(raw).startswith("dynatree.ablations.E1.change: differs from the baseline in 2 component")


def test_groups_count_as_configured_where_the_comparator_has_no_drafter(raw):
    del raw["dynatree"]["ablations"]["F2"]["compound"]
    assert problem(raw).startswith(
        "dynatree.ablations.F2.change: differs from F1 in 3 component groups (drafter, shape, pruning);"
    )
    raw["dynatree"]["ablations"]["F2"]["change"] = {}
    raw["dynatree"]["only"] = ["F1", "F2"]
    raw["paper"]["confirmatory"]["dynatree"] = ["F2"]
    assert experiment(raw, "F2").versus == "F1"


def test_a_value_that_is_wrong_is_named_before_groups_are_counted(raw):
    raw["dynatree"]["ablations"]["N1"]["change"]["drafter"] = "destilled"
    assert problem(raw).startswith("dynatree.ablations.N1.change.drafter: 'destilled' is not in")


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("path", [None, *sorted((ROOT / "workflow/studies").glob("*.yaml"))], ids=str)
def test_every_compound_of_a_shipped_study_is_needed(raw, path):
    if path is not None:
        update_config(raw, yaml.safe_load(path.read_text()))
    running = {row.experiment.id for row in Plan(copy.deepcopy(raw), ROOT).rows}
    flagged = [
        (method, name)
        for method in ("sdtp", "dynatree")
        for name, ablation in raw[method]["ablations"].items()
        if name in running and ablation.get("compound")
    ]
    if path is None:
        assert [name for _, name in flagged] == ["F2", "O1", "N1"]
    for method, name in flagged:
        isolated = copy.deepcopy(raw)
        del isolated[method]["ablations"][name]["compound"]
        assert problem(isolated).startswith(f"{method}.ablations.{name}.change: differs from ")
