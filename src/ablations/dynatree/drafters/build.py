"""From the spec of a drafter to the drafter, its artefacts opened and its buffers allocated."""

from collections.abc import Callable
from pathlib import Path

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.dynatree.distilling.model import DRAFT_FILE, DistilledDraft
from ablations.dynatree.drafters.distilled import DistilledDrafter
from ablations.dynatree.drafters.hybrid import HybridDrafter
from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.drafters.lookup import PromptLookupDrafter
from ablations.dynatree.drafters.neural import NeuralDrafter
from ablations.dynatree.drafters.ngram import NgramDrafter
from ablations.dynatree.drafters.ngram_counts import NgramCounts
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.fused import fastest
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.arm import (
    DistilledDraftSpec,
    DraftSpec,
    HybridDraftSpec,
    NgramDraftSpec,
    PromptLookup,
)
from ablations.specs.lm import Compute

Find = Callable[[str], Path]
"""Path of an artefact by the name that drafters know it by: ``model``, ``draft``, ``ngram``, ``distilled``
or ``costs``; raises `UserError` where there is none."""


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
