"""Probabilities of drafts are the shares that turn out on validation prompts."""

import numpy as np
import pytest
import torch

from ablations.core.artefact import Manifest, open_artefact
from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.core.job import Run, read_job
from ablations.core.panel import Member, Panel
from ablations.core.record import read_contract
from ablations.dynatree import calibrate_costs, calibrate_drafter, traced
from ablations.dynatree.drafters.build import ACCEPTANCE_FILE, Loaded, build_drafter
from ablations.dynatree.drafters.calibrated import CalibratedDrafter
from ablations.dynatree.drafters.lookup import PromptLookupDrafter
from ablations.dynatree.tree import TokenTree
from ablations.lm.checkpoint import load_model
from ablations.specs.dynatree.arm import HybridDraftSpec, NgramDraftSpec, PromptLookup
from ablations.specs.dynatree.calibrate_costs import CostSpec
from ablations.specs.dynatree.calibrate_drafter import Acceptance, AcceptanceSpec
from ablations.specs.dynatree.costs import read_costs
from ablations.specs.lm import Compute
from tests.dynatree.test_jobs import folder, inputs  # noqa: F401
from tests.dynatree.workspace import (
    ACCEPTANCE_SPEC,
    COST_SPEC,
    LOOKUP,
    NEURAL,
    NGRAM,
    PRUNED,
    TREE,
    decode_spec,
    decoded,
    run_member,
    write_job,
)

CPU = torch.device("cpu")
HALF = Acceptance(stated=(0.0, 0.5, 1.0), accepted=(0.0, 0.2, 0.6))


class Stated:
    """Proposes tokens 0, 1, ... with given probabilities."""

    forwards = 0
    alone = False

    def __init__(self, *probabilities: float) -> None:
        self.probabilities = torch.tensor([probabilities], dtype=torch.float64)

    def propose(self, tree, level, branching):
        return torch.arange(branching)[None], self.probabilities[:, :branching]


def proposed(*probabilities: float) -> list[float]:
    tree = TokenTree(4, CPU)
    tree.plant(0)
    drafter = CalibratedDrafter(Stated(*probabilities), HALF, CPU)
    return drafter.propose(tree, slice(0, 1), len(probabilities))[1][0].tolist()


def test_proposals_carry_the_share_that_was_accepted():
    # A hundredth of the stated probability keeps different ones apart.
    expected = [0.99 * 0.6 + 0.01, 0.99 * 0.4 + 0.0075, 0.99 * 0.2 + 0.005, 0.99 * 0.1 + 0.0025, 0.0]
    assert proposed(1.0, 0.75, 0.5, 0.25, 0.0) == pytest.approx(expected)


def test_different_probabilities_stay_apart_where_equal_shares_were_accepted():
    flat = Acceptance(stated=(0.0, 0.1, 1.0), accepted=(0.0, 0.5, 0.5))
    tree = TokenTree(4, CPU)
    tree.plant(0)
    _, found = CalibratedDrafter(Stated(0.9, 0.8, 0.3), flat, CPU).propose(tree, slice(0, 1), 3)
    assert found[0, 0] > found[0, 1] > found[0, 2]


def test_a_stated_probability_that_is_no_number_stays_none():
    found = proposed(float("nan"), 0.5)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(0.99 * 0.2 + 0.005)


def shares(folder, name: str, drafter: dict, inputs) -> Acceptance:  # noqa: F811
    spec = ACCEPTANCE_SPEC | {"drafter": drafter}
    out = run_member(folder, name, AcceptanceSpec, calibrate_drafter.calibrate, spec, inputs)
    return read_contract(out.parent / ACCEPTANCE_FILE, Acceptance)


@pytest.mark.parametrize("drafter", [LOOKUP, NGRAM, NEURAL])
def test_what_is_counted_is_tried_after_an_accepted_token(drafter, folder, inputs):  # noqa: F811
    """Lines of drafts, against the depths that decoding reports."""
    line = {"shape": {"method": "linear", "depth": 3, "branching": 1}}
    spec = decode_spec(drafter, line["shape"], {"tau": None, "max_nodes": 12})
    (block,) = decoded(folder, f"decoded-{drafter['kind']}", spec, inputs).blocks
    tested = sum(sum(sample.tested_per_depth) for sample in block.samples)
    accepted = sum(sum(sample.accepted_per_depth) for sample in block.samples)
    spec = ACCEPTANCE_SPEC | line | {"drafter": drafter}
    name = f"counted-{drafter['kind']}"
    out = run_member(folder, name, AcceptanceSpec, calibrate_drafter.calibrate, spec, inputs)
    assert open_artefact(out)[1].facts["proposals"] == tested
    found = read_contract(out.parent / ACCEPTANCE_FILE, Acceptance)
    assert found.accepted[-1] >= accepted / tested
    if accepted in (0, tested) or len(found.stated) == 3:
        assert set(found.accepted[1:]) == {accepted / tested}


def test_shares_never_fall_and_lie_between_no_and_all(folder, inputs):  # noqa: F811
    for name, drafter in (("of-ngram", NGRAM), ("of-neural", NEURAL)):
        found = shares(folder, name, drafter, inputs)
        assert list(found.stated) == sorted(set(found.stated))
        assert (found.stated[0], found.stated[-1], found.accepted[0]) == (0, 1, 0)
        assert list(found.accepted) == sorted(found.accepted)


def test_one_calibration_fails_alone_and_the_target_is_loaded_once(folder, inputs, monkeypatch):  # noqa: F811
    loads = []
    load = traced.load_model
    monkeypatch.setattr(traced, "load_model", lambda *args: loads.append(args) or load(*args))
    made = {"missing": NEURAL | {"kind": "distilled"}, "lookup": LOOKUP, "ngram": NGRAM}
    members = []
    for name, drafter in made.items():
        path = write_job(folder, f"side-{name}", ACCEPTANCE_SPEC | {"drafter": drafter}, inputs)
        out = folder / f"side-{name}" / "manifest.json"
        members.append(Member(Run(read_job(path, AcceptanceSpec), out, name)))
    calibrate_drafter.calibrate(Panel(members))
    assert [member.failure is None for member in members] == [False, True, True]
    assert [member.run.out.exists() for member in members] == [False, True, True]
    assert len(loads) == 1


def test_nothing_drafted_is_one_line(folder, inputs):  # noqa: F811
    spec = ACCEPTANCE_SPEC | {"new_tokens": 1}
    with pytest.raises(UserError, match=r"dynatree\.calibration\.prompts: nothing was drafted on them"):
        run_member(folder, "nothing", AcceptanceSpec, calibrate_drafter.calibrate, spec, inputs)


def test_a_calibrated_arm_emits_the_same_tokens(folder, inputs):  # noqa: F811
    plain, calibrated = (
        decoded(folder, name, decode_spec(NGRAM, TREE, PRUNED, calibrated=flag), inputs)
        for name, flag in (("plain", False), ("calibrated", True))
    )
    assert [row["tokens"] for row in plain.rows] == [row["tokens"] for row in calibrated.rows]


def test_what_is_calibrated_in_a_mixture_is_its_parts(inputs):  # noqa: F811
    compute = Compute(dtype="float32", threads=1)
    loaded = Loaded(load_model(inputs["model"], compute, CPU), compute)
    built = build_drafter(NgramDraftSpec(context_weight=16.0), inputs.__getitem__, loaded, 60, 12, 2, True)
    assert isinstance(built, CalibratedDrafter)
    asked = []

    def find(name: str):
        asked.append(name)
        if name.startswith("distilled"):
            raise UserError("no distilled draft")
        return inputs[name]

    with pytest.raises(UserError, match="no distilled draft"):
        build_drafter(
            HybridDraftSpec(context_weight=16.0, share=0.5, sure=0.7), find, loaded, 60, 12, 2, True
        )
    assert asked == ["ngram", "ngram_acceptance", "distilled"]
    plain = build_drafter(PromptLookup(), inputs.__getitem__, loaded, 60, 12, 2)
    assert isinstance(plain, PromptLookupDrafter)


def test_a_drafter_that_is_never_right_has_costs(folder, inputs):  # noqa: F811
    """Its calibrated proposals are too improbable to be drafted; that is a result."""
    never = Acceptance(stated=(0.0, 1.0), accepted=(0.0, 0.0)).model_dump_json()
    manifest = folder / "never" / "manifest.json"
    manifest.parent.mkdir()
    described = Manifest.model_validate_json(inputs["ngram_acceptance"].read_bytes())
    (manifest.parent / ACCEPTANCE_FILE).write_text(never)
    files = {ACCEPTANCE_FILE: sha256_file(manifest.parent / ACCEPTANCE_FILE)}
    manifest.write_text(described.model_copy(update={"files": files}).model_dump_json())
    spec = COST_SPEC | {"calibrated": True, "drafter": NEURAL}
    hopeless = inputs | {"neural_acceptance": manifest}
    found = read_costs(run_member(folder, "hopeless", CostSpec, calibrate_costs.measure, spec, hopeless))
    assert (found.accepted[-1], found.child) == (0.0, 0.0)
    assert found.rate == pytest.approx(1 / float(found.target.verify_seconds(1, found.target.typical_prefix)))


def test_cost_aware_trees_are_timed_within_their_own_room(folder, inputs, monkeypatch):  # noqa: F811
    """Where time is worth nothing every node pays, up to the most that a cost-aware tree may have."""
    monkeypatch.setattr(calibrate_costs.Calibration, "_best_rate", lambda self, costs: 1e-9)
    monkeypatch.setattr(calibrate_costs, "acceptance_curve", lambda *nodes: ([0.0, 1.0], [0.0, 1.0]))
    spec = COST_SPEC | {"max_nodes": 5, "shape": TREE | {"depth": 3}}
    found = read_costs(run_member(folder, "roomy", CostSpec, calibrate_costs.measure, spec, inputs))
    assert found.bookkeeping["cost_aware"].at(5) > 0
