"""Jobs `grid`: acceptance of many tree shapes on known greedy tokens, and times by calibrated costs."""

from collections.abc import Sequence

from tqdm import tqdm

from ablations.core.files import write_text
from ablations.core.job import Run
from ablations.core.panel import Panel, main
from ablations.core.record import digests_of, environment_of
from ablations.dynatree.decoding import Draft
from ablations.dynatree.drafters.build import Loaded, build_drafter
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.replay import replayed
from ablations.dynatree.traced import on_traces
from ablations.dynatree.traces import Trace
from ablations.dynatree.tree import TokenTree
from ablations.lm.device import device_name
from ablations.specs.dynatree.costs import Costs, read_costs
from ablations.specs.dynatree.grid import Grid, GridPoint, GridSample, GridSpec


def replay_sample(trace: Trace, draft: Draft, tokens: int, costs: Costs) -> GridSample:
    """Replay one prompt up to `tokens` new tokens, and price it."""
    found = replayed(draft, trace._replace(greedy=trace.greedy[:tokens]), tokens)
    return GridSample(
        document=found.document,
        kind=found.kind,
        new_tokens=found.new_tokens,
        repeated_4grams=found.repeated_4grams,
        rounds=found.target_forwards,
        accepted=found.accepted,
        drafted=found.drafted,
        seconds=costs.price(found, "fixed").rounds,
        reference_seconds=costs.autoregressive(found).rounds,
    )


def grids(panel: Panel[GridSpec]) -> None:
    """Replay every configuration of each grid on its prompts, and write acceptance and seconds.

    Acceptance is exact, because greedy verification depends only on the target's greedy tokens
    (`ablations.dynatree.replay`). Seconds are computed from calibrated costs. A grid whose result is there is
    skipped. One of which an input is invalid fails alone.

    Raises:
        UserError: the target is missing or corrupt.
    """
    on_traces(panel, panel.first.spec.compute, _replay)


def _replay(run: Run[GridSpec], loaded: Loaded, traces: Sequence[Trace]) -> None:
    spec, target = run.spec, loaded.target
    costs = read_costs(run.job.path("costs"))
    nodes = max(tree.nodes for tree in spec.trees)
    capacity = max(len(trace.prompt) for trace in traces) + spec.new_tokens
    branching = max(tree.shape.branching for tree in spec.trees)
    drafter = build_drafter(spec.drafter, run.job.path, loaded, capacity, nodes, branching, spec.calibrated)
    points = []
    for tree in tqdm(spec.trees, desc="replay", mininterval=2):
        growth = FixedGrowth(tree.shape.depth, tree.shape.branching, tree.pruning.tau)
        draft = Draft(drafter, TokenTree(tree.nodes, target.device), growth)
        for tokens in spec.lengths:
            samples = tuple(replay_sample(trace, draft, tokens, costs) for trace in traces)
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
