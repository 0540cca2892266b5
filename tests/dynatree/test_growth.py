from dataclasses import dataclass, field
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from ablations.dynatree.growth.cost_aware import CostModel
from ablations.dynatree.growth.dynamic import DynamicGrowth
from ablations.dynatree.growth.fixed import FixedGrowth, Growth
from ablations.dynatree.tree import TokenTree
from ablations.specs.dynatree.arm import DynamicTree, History
from ablations.specs.dynatree.costs import Line
from tests.dynatree.growths import CPU, MAX_NODES, TARGET_COSTS, cost_aware, costs


def level_of(base: float, unit: float = 1e-5) -> dict[str, Line]:
    """Costs of drafting from any level."""
    return {"deep": Line(base=base, unit=unit)}


@dataclass
class Scripted:
    """Proposes given probabilities by depth, the last ones at all greater depths."""

    probabilities: list[list[float]]
    asked: list[int] = field(default_factory=list)
    forwards: int = 0
    alone = False

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        rows = level.stop - level.start
        depth = int(tree.depths[level.start])
        self.asked.append(rows)
        row = self.probabilities[min(depth, len(self.probabilities) - 1)]
        row = (row + [0.0] * branching)[:branching]
        return torch.arange(branching).repeat(rows, 1), torch.tensor([row] * rows, dtype=torch.float64)


def grown(growth: Growth, probabilities: list[list[float]], levels: int = 10, room: int = MAX_NODES):
    tree = TokenTree(room, CPU)
    tree.plant(0)
    growth.start()
    rows = growth.grow(tree, Scripted(probabilities), levels)
    return tree, rows


def widths(tree: TokenTree) -> list[int]:
    return tree.depths.bincount().tolist()[1:]


def dynamic(base_depth: int = 2, tau: float | None = None, **changes) -> DynamicGrowth:
    return DynamicGrowth(DynamicTree(kind="dynamic", **changes), base_depth, tau, CPU)


@pytest.mark.parametrize(
    ("first", "children"), [(0.95, 1), (0.9, 1), (0.89, 2), (0.4, 2), (0.39, 3), (0.05, 3)]
)
def test_breadth_follows_the_first_choice(first, children):
    rest = [(1 - first) / 2, (1 - first) / 2 - 1e-3]
    tree, _ = grown(dynamic(max_depth=2), [[first, *rest]], levels=1)
    assert widths(tree) == [children]


def test_a_node_under_rho_stop_has_no_children():
    # Paths 0.5 and 0.1 at depth 1: only the first goes on; at depth 2 its children 0.25 and 0.05.
    tree, _ = grown(dynamic(base_depth=8, rho_stop=0.2, rho_deep=0.2), [[0.5, 0.1]], levels=3)
    assert widths(tree) == [2, 2, 2]
    assert tree.parents[3:5].tolist() == [1, 1]


def test_from_the_base_depth_on_rho_deep_decides():
    sure, unsure = [[0.9]], [[0.6]]
    assert len(widths(grown(dynamic(base_depth=3, rho_deep=0.6, max_depth=6), sure)[0])) == 5
    assert len(widths(grown(dynamic(base_depth=3, rho_deep=0.6, max_depth=6), unsure)[0])) == 3
    assert len(widths(grown(dynamic(base_depth=3, rho_deep=0.01, max_depth=6), sure)[0])) == 6


def test_history_controls_depth_and_threshold_and_starts_anew():
    history = History(
        target=0.5, smoothing=0.5, depth_gain=4.0, threshold_gain=0.2, threshold_range=(0.05, 0.12)
    )
    growth = dynamic(base_depth=3, rho_stop=0.1, max_depth=5, history=history)
    growth.learn(4, 4)
    # Running mean 0.75: one level more, and the threshold lower by 0.05.
    assert (growth.depth, growth.rho_stop) == (4, pytest.approx(0.05))
    for _ in range(8):
        growth.learn(4, 0)
    assert (growth.depth, growth.rho_stop) == (1, 0.12)
    growth.start()
    assert (growth.depth, growth.rho_stop) == (3, 0.1)


def test_without_history_rounds_teach_nothing():
    growth = dynamic(base_depth=3)
    growth.learn(4, 0)
    assert (growth.depth, growth.rho_stop) == (3, 0.1)


@pytest.mark.parametrize("changes", [{"confidences": (0.4, 0.9)}, {"confidences": (0.9,)}])
def test_confidences_must_fit_the_breadths(changes):
    with pytest.raises(ValidationError, match="confidences"):
        DynamicTree(kind="dynamic", **changes)


def test_a_proposal_of_probability_zero_is_never_a_node():
    for growth in (FixedGrowth(3, 3, None), dynamic(), cost_aware()):
        tree, _ = grown(growth, [[0.9, 0.0, 0.0]])
        assert (tree.probabilities > 0).all()
        assert max(widths(tree)) == 1
        assert grown(growth, [[0.0, 0.0, 0.0]])[0].size == 1


def closed_sets(tree: TokenTree) -> list[list[int]]:
    """All sets of rows with the root in which every row has its parent."""
    sets = []
    for count in range(tree.size):
        for nodes in combinations(range(1, tree.size), count):
            rows = {0, *nodes}
            if all(int(tree.parents[row]) in rows for row in rows):
                sets.append(sorted(rows))
    return sets


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(10.0, 400.0),
    probabilities=st.lists(
        st.lists(st.floats(0.02, 0.5), min_size=2, max_size=2).map(lambda row: sorted(row, reverse=True)),
        min_size=1,
        max_size=3,
    ),
)
def test_no_set_of_drafted_nodes_is_better_than_the_selected_one(rate, probabilities):
    growth = cost_aware(max_depth=3, branching=2, rate=rate)
    tree, rows = grown(growth, probabilities, room=10)
    model = CostModel(costs(rate=rate), MAX_NODES, CPU)
    gains = model.acceptance(tree.probabilities)

    def value(nodes: list[int]) -> float:
        return float(gains[nodes].sum() - model.verify[len(nodes) - 1])

    nodes = list(range(tree.size)) if rows is None else rows.tolist()
    assert nodes in closed_sets(tree)
    assert value(nodes) == pytest.approx(max(map(value, closed_sets(tree))))


def test_dear_rows_leave_the_root_alone_and_free_ones_take_everything():
    steep = TARGET_COSTS.model_copy(update={"verify": ((0.01, 1.0, 3.0),)})
    dear = cost_aware(target=steep)
    tree, rows = grown(dear, [[0.5, 0.3]])
    assert tree.size == 1
    flat = TARGET_COSTS.model_copy(update={"verify": ((0.01, 0.01, 0.01),)})
    free = cost_aware(max_depth=3, branching=2, target=flat, levels=level_of(0.0, 0.0))
    tree, rows = grown(free, [[0.5, 0.3]])
    assert rows is None
    assert widths(tree) == [2, 4, 8]


def test_a_forward_that_costs_less_than_one_over_fewer_rows_is_taken_and_promises_nothing_of_more():
    dip = TARGET_COSTS.model_copy(update={"verify": ((0.03, 0.02, 9.0),)})
    growth = cost_aware(target=dip, levels=level_of(0.0, 0.0))
    assert CostModel(costs(target=dip), MAX_NODES, CPU).least_row_cost == 0
    _, rows = grown(growth, [[0.3, 0.3]])
    assert rows is not None
    assert len(rows) == TARGET_COSTS.rows[1]


def test_a_dear_draft_stops_where_a_cheap_one_goes_on():
    shallow, _ = grown(cost_aware(branching=1, levels=level_of(0.004)), [[0.8]])
    deep, _ = grown(cost_aware(branching=1, levels=level_of(0.0)), [[0.8]])
    assert shallow.levels < deep.levels


def test_acceptance_is_interpolated_and_held_at_the_ends():
    model = CostModel(costs(), MAX_NODES, CPU)
    paths = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 1.0 + 1e-7], dtype=torch.float64)
    assert model.acceptance(paths).tolist() == pytest.approx([0.0, 0.2, 0.4, 0.65, 0.9, 0.9])


@pytest.mark.parametrize("rate", [0.001, 20.0, 150.0, 1e4])
def test_nodes_under_the_payable_probability_are_those_that_cannot_pay(rate):
    model = CostModel(costs(rate=rate), MAX_NODES, CPU)
    paths = torch.linspace(0, 1, 3001, dtype=torch.float64)
    assert torch.equal(paths >= model.payable, model.acceptance(paths) > model.least_row_cost)
