"""Grids: replayed rounds are those of decoding, and their times follow from calibrated costs."""

from pathlib import Path

import numpy as np
import pytest

from ablations.core.errors import UserError
from ablations.core.job import Run, read_job
from ablations.core.panel import Member, Panel
from ablations.core.record import read_contract
from ablations.dynatree import calibrate_costs, grid, traced
from ablations.dynatree.drafters import build
from ablations.specs.dynatree.calibrate_costs import CostSpec
from ablations.specs.dynatree.costs import read_costs
from ablations.specs.dynatree.grid import Grid, GridSpec
from tests.dynatree.test_jobs import folder, inputs  # noqa: F401
from tests.dynatree.workspace import (
    CODE,
    COST_SPEC,
    LINEAR,
    NEURAL,
    NEW_TOKENS,
    NGRAM,
    PROMPTS,
    TREE,
    decode_spec,
    decoded,
    run_member,
    write_job,
)

CAPPED = {"tau": 0.05, "max_nodes": 12}
UNPRUNED = {"tau": None, "max_nodes": 12}
TREES = [{"shape": LINEAR, "pruning": UNPRUNED}, {"shape": TREE, "pruning": CAPPED}]


def grid_job(folder: Path, name: str, inputs: dict[str, Path], **changes) -> Member:  # noqa: F811
    spec = {
        "drafter": NGRAM,
        "trees": TREES,
        "lengths": [4, NEW_TOKENS],
        "prompts": [CODE | {"count": PROMPTS}],
        "compute": {"dtype": "float32", "threads": 1},
    } | changes
    spec["new_tokens"] = spec["lengths"][-1]
    out = folder / f"{name}.json"
    out.unlink(missing_ok=True)
    return Member(Run(read_job(write_job(folder, name, spec, inputs), GridSpec), out, name))


def replayed(folder: Path, inputs: dict[str, Path], **changes) -> Grid:  # noqa: F811
    """A grid in a panel of its own; its error is raised."""
    member = grid_job(folder, "grid", inputs, **changes)
    grid.grids(Panel([member]))
    if member.failure is not None:
        raise UserError(member.failure)
    return read_contract(member.run.out, Grid)


@pytest.mark.parametrize("drafter", [NGRAM, NEURAL])
def test_grids_share_target_and_drafter_and_give_what_they_give_alone(drafter, folder, inputs, monkeypatch):  # noqa: F811
    deep = [{"shape": {"depth": 6, "branching": 1, "method": "linear"}, "pruning": UNPRUNED}]
    grids = {"trees": {"lengths": [8]}, "lengths": {"trees": deep, "lengths": [2, NEW_TOKENS, 20]}}
    alone = [replayed(folder, inputs, drafter=drafter, **changes) for changes in grids.values()]
    loads = []
    for module in (traced, build):
        load = module.load_model
        monkeypatch.setattr(
            module,
            "load_model",
            lambda path, *rest, load=load: loads.append(path.parent.name) or load(path, *rest),
        )
    members = [grid_job(folder, name, inputs, drafter=drafter, **changes) for name, changes in grids.items()]
    grid.grids(Panel(members))
    together = [read_contract(member.run.out, Grid) for member in members]
    assert [one.points for one in together] == [one.points for one in alone]
    assert loads == (["model", "draft"] if drafter == NEURAL else ["model"])


def test_a_grid_is_skipped_or_fails_alone(folder, inputs, monkeypatch):  # noqa: F811
    there, failing, fine = (
        grid_job(folder, name, inputs, **changes)
        for name, changes in {"there": {}, "failing": {"lengths": [4080]}, "fine": {}}.items()
    )
    there.run.out.write_text("as it was")
    grid.grids(Panel([there, failing, fine]))
    assert there.run.out.read_text() == "as it was"
    assert "4080 new ones exceed the target's 4096 positions" in failing.failure
    assert not failing.run.out.exists()
    assert fine.run.out.exists()
    monkeypatch.delattr(traced, "load_model")
    grid.grids(Panel([there, fine]))


def test_replay_accepts_what_decoding_accepts(folder, inputs):  # noqa: F811
    points = [point for point in replayed(folder, inputs).points if point.tokens == NEW_TOKENS]
    for name, tree, point in zip(("line", "tree"), TREES, points, strict=True):
        samples = decoded(folder, name, decode_spec(NGRAM, tree["shape"], tree["pruning"]), inputs).samples
        for point_sample, sample in zip(point.samples, samples, strict=True):
            assert (point_sample.document, point_sample.new_tokens) == (sample.document, sample.new_tokens)
            assert (point_sample.rounds, point_sample.accepted, point_sample.drafted) == (
                sample.target_forwards,
                sample.accepted,
                sample.drafted,
            )
            assert point_sample.repeated_4grams == sample.repeated_4grams


def test_a_round_costs_its_forward_its_levels_and_its_end(folder, inputs):  # noqa: F811
    costs = read_costs(inputs["costs"])
    line = [{"shape": {"method": "linear", "depth": 1, "branching": 1}, "pruning": UNPRUNED}]
    (point,) = replayed(folder, inputs, trees=line, lengths=[NEW_TOKENS]).points
    prompt = CODE["tokens"]
    for sample in point.samples:
        decode = costs.target.verify_seconds(1, prompt + np.arange(sample.new_tokens - 1))
        assert sample.reference_seconds == pytest.approx(decode.sum())
        if sample.accepted == 0:
            # Each drafted node is a level of one row; the last round has no room for one.
            prefixes = prompt + np.arange(sample.rounds)
            nodes = np.array([1] * sample.drafted + [0] * (sample.rounds - sample.drafted))
            expected = costs.target.verify_seconds(1 + nodes, prefixes).sum()
            expected += sample.drafted * costs.level(0, alone=False).at(1)
            expected += sum(costs.commit.at(0) + costs.bookkeeping["fixed"].at(size) for size in nodes)
            assert sample.seconds == pytest.approx(expected)


def test_each_length_is_a_beginning_of_the_longest(folder, inputs):  # noqa: F811
    grid_of_lengths = replayed(folder, inputs)
    assert [point.tokens for point in grid_of_lengths.points] == [4, NEW_TOKENS] * 2
    short, long = grid_of_lengths.points[:2]
    for beginning, whole in zip(short.samples, long.samples, strict=True):
        assert beginning.new_tokens == min(4, whole.new_tokens)
        assert beginning.rounds <= whole.rounds


@pytest.mark.parametrize("lengths", [[1], [1, 2]])
def test_few_tokens_are_replayed(lengths, folder, inputs):  # noqa: F811
    points = replayed(folder, inputs, lengths=lengths).points
    assert [point.tokens for point in points] == lengths * 2
    for point in points:
        assert all(sample.rounds == point.tokens - 1 for sample in point.samples)


def test_calibration_on_prompts_without_rounds_is_one_line(folder, inputs):  # noqa: F811
    with pytest.raises(UserError, match=r"calibration\.prompts: nothing was drafted on them"):
        run_member(folder, "none", CostSpec, calibrate_costs.measure, COST_SPEC | {"new_tokens": 1}, inputs)
