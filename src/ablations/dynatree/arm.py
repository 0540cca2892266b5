"""From the spec of a decoding configuration to a drafter, the growth of its trees, and their buffers."""

from collections.abc import Callable
from pathlib import Path

from ablations.dynatree.decoding import Draft
from ablations.dynatree.distilling.model import DRAFT_FILE, DistilledDraft
from ablations.dynatree.drafters.distilled import DistilledDrafter
from ablations.dynatree.drafters.hybrid import HybridDrafter
from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.drafters.lookup import PromptLookupDrafter
from ablations.dynatree.drafters.neural import NeuralDrafter
from ablations.dynatree.drafters.ngram import NgramDrafter
from ablations.dynatree.drafters.ngram_counts import NgramCounts
from ablations.dynatree.growth.cost_aware import CostAwareGrowth, CostModel
from ablations.dynatree.growth.dynamic import DynamicGrowth
from ablations.dynatree.growth.fixed import FixedGrowth, Growth
from ablations.dynatree.tree import TokenTree
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.fused import fastest
from ablations.lm.layered import LayeredLM
from ablations.study.artefact import open_artefact
from ablations.study.contracts.dynatree import (
    Adaptation,
    ArmSpec,
    CostAwareTree,
    Costs,
    DistilledDraftSpec,
    DraftSpec,
    DynamicTree,
    HybridDraftSpec,
    NgramDraftSpec,
    PromptLookup,
    Shape,
    tree_nodes,
)
from ablations.study.contracts.lm import Compute
from ablations.study.errors import UserError
from ablations.study.record_io import read_contract

COSTS_FILE = "costs.json"

Find = Callable[[str], Path]
"""Path of an artefact by the name that drafters know it by: ``model``, ``draft``, ``ngram``, ``distilled``
or ``costs``; raises `UserError` where there is none."""


def build_draft(arm: ArmSpec, find: Find, compute: Compute, target: LayeredLM, tokens: int) -> Draft:
    """Drafter, growth and tree of a speculative arm.

    Args:
        arm: The configuration; it has a drafter.
        find: Where artefacts lie.
        compute: How a draft model computes.
        target: The model that decides.
        tokens: Most tokens of a prompt and its continuation.

    Raises:
        UserError: a contradictory spec, a drafter of another vocabulary, or trees whose cost is not known.
    """
    shape, pruning, adaptation = arm.shape, arm.pruning, arm.adaptation
    if shape.method == "linear" and (shape.branching != 1 or adaptation is not None):
        raise UserError(
            "shape.method: a linear draft is one path of fixed length; set it to tree, or shape.branching"
            " to 1 and 'adaptation' to null"
        )
    nodes = most_nodes(shape, adaptation, pruning.max_nodes)
    growth: Growth = FixedGrowth(shape.depth, shape.branching, pruning.tau)
    if isinstance(adaptation, DynamicTree):
        growth = DynamicGrowth(adaptation, shape.depth, pruning.tau, target.device)
    elif isinstance(adaptation, CostAwareTree):
        costs = read_costs(find("costs"))
        model = CostModel(costs, nodes, target.device)
        growth = CostAwareGrowth(model, shape.depth, shape.branching, pruning.tau)
    breadths = adaptation.breadths if isinstance(adaptation, DynamicTree) else (shape.branching,)
    drafter = build_drafter(arm.drafter, find, compute, target, tokens, nodes, max(breadths))
    return Draft(drafter, TokenTree(nodes, target.device), growth)


def most_nodes(shape: Shape, adaptation: Adaptation | None, max_nodes: int) -> int:
    """Most nodes below the root that a tree can come to have.

    Raises:
        UserError: a cap under the depth, by which no path could reach it.
    """
    depth, branching = shape.depth, shape.branching
    if isinstance(adaptation, DynamicTree):
        depth, branching = adaptation.max_depth, max(adaptation.breadths)
        if shape.depth > depth:
            raise UserError(f"adaptation.max_depth: {depth} is less than the base depth {shape.depth}")
    if max_nodes < depth:
        raise UserError(
            f"pruning.max_nodes: {max_nodes} nodes cannot hold a path of depth {depth}; raise it or lower"
            " the depth"
        )
    return tree_nodes(depth, branching, max_nodes)


def read_costs(manifest: Path) -> Costs:
    """Read what `ablations.dynatree.calibrate_costs` made.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    return read_contract(folder / COSTS_FILE, Costs)


def build_drafter(
    spec: DraftSpec, find: Find, compute: Compute, target: LayeredLM, tokens: int, nodes: int, branching: int
) -> Drafter:
    """The drafter of a spec.

    Args:
        spec: Which drafter.
        find: Where artefacts lie.
        compute: How a draft model computes.
        target: The model that decides.
        tokens: Most tokens of a prompt and its continuation.
        nodes: Most nodes of a tree below its root.
        branching: Most children of a node.

    Raises:
        UserError: another vocabulary than the target's, too few positions, or fewer tokens than children.
    """
    vocabulary = target.lm_head.out_features
    _require_choices(branching, vocabulary)
    if isinstance(spec, PromptLookup):
        return PromptLookupDrafter(spec, target.device)
    if isinstance(spec, NgramDraftSpec | HybridDraftSpec):
        counts = NgramCounts.load(find("ngram"), vocabulary)
        ngram = NgramDrafter(counts, spec.context_weight, target.device)
        if isinstance(spec, NgramDraftSpec):
            return ngram
        distilled = _distilled(find("distilled"), target, tokens + nodes, nodes, branching)
        return HybridDrafter(distilled, ngram, spec.share, spec.sure)
    if isinstance(spec, DistilledDraftSpec):
        return _distilled(find("distilled"), target, tokens + nodes, nodes, branching)
    model, draft_model = find("model"), find("draft")
    if load_tokenizer(model).get_vocab() != load_tokenizer(draft_model).get_vocab():
        raise UserError(
            f"{draft_model}: the draft's vocabulary is not the target's; choose a draft that shares it"
        )
    draft = load_model(draft_model, compute, target.device)
    if draft.config.max_position_embeddings < tokens:
        raise UserError(
            f"{draft_model}: the draft has {draft.config.max_position_embeddings} positions, prompts and new"
            f" tokens need {tokens}; set 'tokens' of the prompts lower or choose another draft"
        )
    draft, _ = fastest(draft)
    return NeuralDrafter(draft, vocabulary, tokens + nodes, nodes)


def _distilled(
    manifest: Path, target: LayeredLM, capacity: int, nodes: int, branching: int
) -> DistilledDrafter:
    folder, _ = open_artefact(manifest)
    draft = DistilledDraft.load(folder / DRAFT_FILE, target)
    _require_choices(branching, len(draft.tokens))
    return DistilledDrafter(draft, target, capacity, nodes)


def _require_choices(branching: int, vocabulary: int) -> None:
    if branching > vocabulary:
        raise UserError(
            f"shape.branching: {branching} children per node, but the drafter knows {vocabulary} tokens;"
            " lower it"
        )
