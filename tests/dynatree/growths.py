"""Growths of trees that are small enough for tests."""

import torch
from hypothesis import strategies as st

from ablations.dynatree.growth.cost_aware import CostAwareGrowth, CostModel
from ablations.dynatree.growth.dynamic import DynamicGrowth
from ablations.dynatree.growth.fixed import FixedGrowth, Growth
from ablations.specs.dynatree.arm import DynamicTree, History
from ablations.specs.dynatree.costs import Costs, Line, TargetCosts

CPU = torch.device("cpu")
MAX_NODES = 24


TARGET_COSTS = TargetCosts(
    rows=(1, 8, MAX_NODES + 1),
    prefixes=(32,),
    verify=((0.010, 0.012, 0.040),),
    prompt_tokens=(16, 64),
    prefill=(0.02, 0.05),
)


def costs(**changes) -> Costs:
    """Costs under which a few nodes pay."""
    facts = {
        "target": TARGET_COSTS,
        "levels": {"deep": Line(base=1e-4, unit=1e-5)},
        "commit": Line(base=1e-5, unit=1e-6),
        "prefill": Line(base=1e-3, unit=1e-5),
        "bookkeeping": dict.fromkeys(("fixed", "dynamic", "cost_aware"), Line(base=2e-4, unit=2e-6)),
        "stated": (0.0, 0.5, 1.0),
        "accepted": (0.0, 0.4, 0.9),
        "child": 0.7,
        "rate": 150.0,
    }
    return Costs(**facts | changes)


def cost_aware(max_depth: int = 6, branching: int = 3, tau: float | None = None, **changes) -> Growth:
    return CostAwareGrowth(CostModel(costs(**changes), MAX_NODES, CPU), max_depth, branching, tau)


@st.composite
def growths(draw) -> Growth:
    """Any growth of trees of at most `MAX_NODES` nodes."""
    depth, branching = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    tau = draw(st.sampled_from([None, 0.001, 0.05, 0.3]))
    kind = draw(st.sampled_from(["linear", "tree", "dynamic", "history", "cost aware"]))
    if kind == "linear":
        return FixedGrowth(depth, 1, None)
    if kind == "tree":
        return FixedGrowth(depth, branching, tau)
    if kind == "cost aware":
        return cost_aware(depth, branching, tau, rate=draw(st.sampled_from([20.0, 100.0, 300.0])))
    history = History(target=draw(st.sampled_from([0.1, 0.5, 0.9]))) if kind == "history" else None
    settings = DynamicTree(
        kind="dynamic",
        confidences=draw(st.sampled_from([(0.9, 0.4), (0.5, 0.1)])),
        rho_stop=draw(st.sampled_from([0.01, 0.2])),
        rho_deep=draw(st.sampled_from([0.05, 0.5])),
        max_depth=depth + 1,
        history=history,
    )
    return DynamicGrowth(settings, depth, tau, CPU)
