"""Jobs `calibrate_costs`: what drafting costs and brings, of each drafter on its target."""

from collections.abc import Sequence
from itertools import groupby

import torch
from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.core.job import Run
from ablations.core.panel import Panel, main
from ablations.dynatree.acceptance import MIN_PATH_PROBABILITY, acceptance_curve
from ablations.dynatree.decoding import Draft, Generation, decode_speculative
from ablations.dynatree.drafters.build import Loaded, build_drafter
from ablations.dynatree.growth.cost_aware import CostAwareGrowth, CostModel
from ablations.dynatree.growth.dynamic import DynamicGrowth
from ablations.dynatree.growth.fixed import FixedGrowth, Growth
from ablations.dynatree.metering import MeteredDrafter, bookkeeping_line, line
from ablations.dynatree.replay import Round, replay, replayed
from ablations.dynatree.traced import on_traces
from ablations.dynatree.traces import Trace
from ablations.dynatree.tree import TokenTree
from ablations.lm.graphs import cache_for
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import device_lock
from ablations.specs.dynatree.arm import DynamicTree, tree_nodes
from ablations.specs.dynatree.calibrate_costs import CostSpec
from ablations.specs.dynatree.costs import COSTS_FILE, Costs, GrowthKind, Line, TargetCosts, read_target_costs

RATE_ROUNDS = 12
RATE_TOLERANCE = 1e-3
WIDE_TOKENS = 12
"""New tokens that unpruned trees decode: each of their rounds takes many times as long."""


class Calibration:
    """A drafter on its target while its costs are measured.

    Args:
        spec: What is measured.
        target: The target.
        drafter: The drafter, for trees of `nodes` nodes.
        nodes: Most nodes of any tree.
        traces: The validation prompts with the target's greedy continuations.
    """

    def __init__(
        self, spec: CostSpec, target: LayeredLM, drafter: MeteredDrafter, nodes: int, traces: Sequence[Trace]
    ) -> None:
        self._spec = spec
        self._target = target
        self._drafter = drafter
        self._traces = traces
        self._tree = TokenTree(nodes, target.device)
        # Costs of larger cost-aware trees are not known to their growth.
        self._small = TokenTree(spec.max_nodes, target.device)
        capacity = max(len(trace.prompt) for trace in traces) + spec.new_tokens + nodes
        self._cache = cache_for(target, capacity, nodes + 1)
        by_kind = groupby(traces, key=lambda trace: trace.window.kind)
        self._timed = [trace for _, kind in by_kind for trace in list(kind)[: spec.timed]]

    def decode(
        self, growth: Growth, tree: TokenTree, traces: Sequence[Trace], new_tokens: int
    ) -> list[Generation]:
        """Decode prompts with trees of a growth, after drafting on them without a clock."""
        # The first call over a number of rows is slower than later ones.
        for trace in traces:
            known = trace._replace(greedy=trace.greedy[:new_tokens])
            replayed(Draft(self._drafter.inner, tree, growth), known, new_tokens)
        draft = Draft(self._drafter, tree, growth)
        return [
            decode_speculative(self._target, self._cache, draft, trace.prompt, new_tokens) for trace in traces
        ]

    def bookkeeping(self, growth: Growth, tree: TokenTree) -> Line:
        """Seconds of a round outside drafter and target with trees of a growth."""
        generations = self.decode(growth, tree, self._timed, self._spec.new_tokens)
        return bookkeeping_line(
            [(len(one.drafted), sum(one.drafted), one.bookkeeping_seconds) for one in generations]
        )

    def measure(self, target: TargetCosts) -> Costs:
        """Decode to time drafting, replay to count acceptance, and choose cost-aware trees by both.

        Raises:
            UserError: nothing is drafted on the prompts.
        """
        shape, tau, device = self._spec.shape, self._spec.pruning.tau, self._target.device
        dynamic = DynamicTree(kind="dynamic", max_depth=shape.depth)
        bookkeeping: dict[GrowthKind, Line] = {
            "fixed": self.bookkeeping(FixedGrowth(shape.depth, shape.branching, tau), self._tree),
            "dynamic": self.bookkeeping(DynamicGrowth(dynamic, shape.depth, tau, device), self._tree),
        }
        self.decode(
            FixedGrowth(shape.depth, shape.branching, None),
            self._tree,
            self._timed[:1],
            min(WIDE_TOKENS, self._spec.new_tokens),
        )
        metered = self._drafter
        levels = {kind: line(timed) for kind, timed in metered.levels.items()}
        drafting = {"levels": levels, "commit": line(metered.commits), "prefill": line(metered.prompts)}
        if not levels:
            raise UserError(
                "dynatree.calibration.prompts: nothing was drafted on them; use more or longer ones"
            )
        rounds = self._rounds(FixedGrowth(shape.depth, shape.branching, MIN_PATH_PROBABILITY))
        stated, accepted = acceptance_curve(
            torch.cat([one_round.stated for one_round in rounds]).cpu().numpy(),
            torch.cat([one_round.is_accepted for one_round in rounds]).cpu().numpy(),
        )
        costs = Costs(
            target=target,
            **drafting,
            bookkeeping=bookkeeping | {"cost_aware": bookkeeping["fixed"]},
            stated=tuple(stated),
            accepted=tuple(accepted),
            child=sum(one.accepted for one in rounds) / max(1, sum(one.tested for one in rounds)),
            rate=1 / float(target.verify_seconds(1, target.typical_prefix)),
        )
        costs = costs.model_copy(update={"rate": self._best_rate(costs)})
        own = self.bookkeeping(self._cost_aware(costs), self._small)
        return costs.model_copy(update={"bookkeeping": bookkeeping | {"cost_aware": own}})

    def _rounds(self, growth: Growth) -> list[Round]:
        draft = Draft(self._drafter, self._small, growth)
        return [one for trace in self._traces for one in replay(draft, trace, self._spec.new_tokens)]

    def _cost_aware(self, costs: Costs) -> CostAwareGrowth:
        model = CostModel(costs, self._spec.max_nodes, self._target.device)
        return CostAwareGrowth(model, self._spec.shape.depth, self._spec.shape.branching, None)

    def _best_rate(self, costs: Costs) -> float:
        """Tokens per second of cost-aware trees on known continuations, by replay with calibrated costs.

        The rate is the price of time in the choice of nodes, and the chosen nodes give a new rate.
        Dinkelbach's iteration starts from the autoregressive rate and keeps the best rate.
        """
        rate = costs.rate
        for _ in tqdm(range(RATE_ROUNDS), desc="rate", mininterval=2):
            growth = self._cost_aware(costs.model_copy(update={"rate": rate}))
            draft = Draft(self._drafter, self._small, growth)
            replays = [replayed(draft, trace, self._spec.new_tokens) for trace in self._traces]
            seconds = sum(costs.price(one, "cost_aware").rounds for one in replays)
            new_rate = sum(one.new_tokens - 1 for one in replays) / seconds
            if new_rate <= rate * (1 + RATE_TOLERANCE):
                return max(rate, new_rate)
            rate = new_rate
        return rate


def measure(panel: Panel[CostSpec]) -> None:
    """Measure costs of each drafter, replay its drafting on the validation prompts, and write its artefact.

    A drafter fails alone if an input is invalid or nothing is drafted.

    Raises:
        UserError: the target is missing or corrupt.
    """
    on_traces(panel, panel.first.spec.compute, _measure)


def _measure(run: Run[CostSpec], loaded: Loaded, traces: Sequence[Trace]) -> None:
    spec, target = run.spec, loaded.target
    capacity = max(len(trace.prompt) for trace in traces) + spec.new_tokens
    nodes = max(spec.max_nodes, tree_nodes(spec.shape.depth, spec.shape.branching, spec.pruning.max_nodes))
    drafter = build_drafter(
        spec.drafter, run.job.path, loaded, capacity, nodes, spec.shape.branching, spec.calibrated
    )
    costs = read_target_costs(run.job.path("target"))
    with device_lock(target.device):
        found = Calibration(spec, target, MeteredDrafter(drafter, target), nodes, traces).measure(costs)
    with new_artefact(run, {"rate": found.rate}) as folder:
        write_text(folder / COSTS_FILE, found.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.dynatree.calibrate_costs", CostSpec, measure, __doc__)
