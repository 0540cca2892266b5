"""Jobs `grid`: acceptance of many tree shapes on known greedy tokens, and times by calibrated costs."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.core.job import Run
from ablations.core.panel import Panel, main
from ablations.core.record import digests_of, environment_of
from ablations.dynatree.decoding import Draft, decode_autoregressive
from ablations.dynatree.drafters.build import Loaded, build_drafter
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.pricing import MeteredDrafter, price, read_costs
from ablations.dynatree.prompts import read_prompts
from ablations.dynatree.repetition import repeated_share
from ablations.dynatree.replay import replay, states_of_text
from ablations.dynatree.tree import TokenTree
from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure, device_name
from ablations.lm.fused import fastest
from ablations.lm.graphs import cache_for
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.costs import Costs
from ablations.specs.dynatree.grid import Grid, GridPoint, GridSample, GridSpec, GridTree

GreedyWindow = tuple[Window, list[int], Tensor]
"""A prompt, the target's greedy continuation, and its states of both."""


def greedy_texts(
    target: LayeredLM, prompts: Iterable[Window], capacity: int, new_tokens: int
) -> Iterator[GreedyWindow]:
    """Decode each prompt once; an end of sequence stops before `new_tokens`."""
    cache = cache_for(target, capacity, 1)
    for window in prompts:
        prompt = window.ids.tolist()
        greedy = decode_autoregressive(target, cache, prompt, new_tokens).tokens
        yield window, greedy, states_of_text(target, prompt, greedy)


def replay_sample(text: GreedyWindow, draft: Draft, tokens: int, costs: Costs) -> GridSample:
    """Replay one prompt up to `tokens` new tokens; the drafter of `draft` must be a `MeteredDrafter`."""
    window, greedy, states = text
    greedy = greedy[:tokens]
    draft.drafter.levels.clear()  # type: ignore[attr-defined]
    rounds = list(replay(draft, window.ids.tolist(), greedy, states))
    sizes = [one_round.size for one_round in rounds]
    return GridSample(
        document=window.document,
        kind=window.kind,
        new_tokens=len(greedy),
        repeated_4grams=repeated_share(greedy, 4),
        rounds=len(rounds),
        accepted=sum(one_round.accepted for one_round in rounds),
        drafted=sum(sizes) - len(sizes),
        seconds=price(costs, sizes, draft.drafter.levels),  # type: ignore[attr-defined]
        reference_seconds=price(costs, [1] * (len(greedy) - 1), []),
    )


def largest_tree(trees: Iterable[GridTree], costs: Costs) -> int:
    """Most nodes of any of the trees.

    Raises:
        UserError: a tree has more nodes than costs are known for.
    """
    nodes = max(tree.nodes for tree in trees)
    if nodes + 1 > costs.rows[-1]:
        raise UserError(
            f"dynatree.grids.max_nodes: trees of {nodes} nodes, but costs are known for {costs.rows[-1] - 1};"
            " lower it"
        )
    return nodes


def grids(panel: Panel[GridSpec]) -> None:
    """Replay each grid, and write it.

    A grid whose result is there is skipped. One of which an input is invalid, or whose trees are larger than
    the calibrated ones, fails alone.

    Raises:
        UserError: the target is missing or corrupt.
    """
    compute = panel.first.spec.compute
    device = configure(compute)
    loaded: Loaded | None = None
    for member in panel.due():
        if loaded is None:
            target, _ = fastest(load_model(panel.first.job.path("model"), compute, device))
            loaded = Loaded(target, compute)
        with member.at_work():
            replay_grid(member.run, loaded)


@torch.inference_mode()
def replay_grid(run: Run[GridSpec], loaded: Loaded) -> None:
    """Decode every prompt once, replay every configuration on it, and write acceptance and costs.

    Acceptance is exact, because greedy verification depends only on the target's greedy tokens
    (`ablations.dynatree.replay`). Seconds are computed from calibrated costs.

    Args:
        run: The grid.
        loaded: The target, and what drafters of several grids are made of.

    Raises:
        UserError: an input is invalid, or trees are larger than the calibrated ones.
    """
    spec, target = run.spec, loaded.target
    costs = read_costs(run.job.path("costs"))
    nodes = largest_tree(spec.trees, costs)
    prompts = read_prompts(run.job, target)
    capacity = max(len(window.ids) for window in prompts) + spec.new_tokens
    branching = max(tree.shape.branching for tree in spec.trees)
    drafter = MeteredDrafter(
        build_drafter(spec.drafter, run.job.path, spec.compute, target, capacity, nodes, branching, loaded),
        target,
    )
    texts = list(
        tqdm(
            greedy_texts(target, prompts, capacity, spec.new_tokens),
            total=len(prompts),
            desc="greedy tokens",
            mininterval=2,
        )
    )
    points = []
    for tree in tqdm(spec.trees, desc="replay", mininterval=2):
        growth = FixedGrowth(tree.shape.depth, tree.shape.branching, tree.pruning.tau)
        draft = Draft(drafter, TokenTree(tree.nodes, target.device), growth)
        for tokens in spec.lengths:
            samples = tuple(replay_sample(text, draft, tokens, costs) for text in texts)
            points.append(GridPoint(tree=tree, tokens=tokens, samples=samples))
    result = Grid(
        spec=spec,
        points=tuple(points),
        environment=environment_of(
            run, device_name(target.device), target.device.type, spec.compute.threads, spec.compute.dtype
        ),
        digests=digests_of(run),
    )
    write_text(run.out, result.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.dynatree.grid", GridSpec, grids, __doc__)
