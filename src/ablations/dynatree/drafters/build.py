"""From the spec of a drafter to the drafter, its artefacts opened and its buffers allocated."""

from collections.abc import Callable
from functools import cache, partial
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
    NeuralDraftSpec,
    NgramDraftSpec,
    PromptLookup,
)
from ablations.specs.lm import Compute

Find = Callable[[str], Path]
"""Path of an artefact by the name that drafters know it by: ``model``, ``draft``, ``ngram``, ``distilled``
or ``costs``; raises `UserError` where there is none."""


class Loaded:
    """What drafters are made of: each artefact is loaded once, and no drafter changes it.

    Args:
        target: The model that decides.
        compute: How a draft model computes.

    Attributes:
        target: The model that decides.
        compute: How a draft model computes.
        counts: N-gram counts of a manifest.
        distilled: Distilled draft of a manifest.
        neural: Draft model, of the manifests of the target and of the draft.
    """

    def __init__(self, target: LayeredLM, compute: Compute) -> None:
        self.target = target
        self.compute = compute
        self.counts = cache(partial(NgramCounts.load, vocabulary=target.lm_head.out_features))
        self.distilled = cache(partial(_distilled, target))
        self.neural = cache(partial(_neural, target, compute))


def build_drafter(
    spec: DraftSpec,
    find: Find,
    compute: Compute,
    target: LayeredLM,
    tokens: int,
    nodes: int,
    branching: int,
    loaded: Loaded | None = None,
) -> Drafter:
    """The drafter of a spec; its state is its own.

    Args:
        spec: Which drafter.
        find: Where artefacts lie.
        compute: How a draft model computes.
        target: The model that decides.
        tokens: Most tokens of a prompt and its continuation.
        nodes: Most nodes of a tree below its root.
        branching: Most children of a node.
        loaded: What it may share with other drafters of this target; None loads it anew.

    Raises:
        UserError: another vocabulary than the target's, too few positions, or fewer tokens than children.
    """
    vocabulary = target.lm_head.out_features
    _require_choices(branching, vocabulary)
    if isinstance(spec, PromptLookup):
        return PromptLookupDrafter(spec, target.device)
    loaded = loaded or Loaded(target, compute)
    if isinstance(spec, NeuralDraftSpec):
        draft = loaded.neural(find("model"), find("draft"))
        positions = draft.config.max_position_embeddings
        if positions < tokens:
            raise UserError(
                f"{find('draft')}: the draft has {positions} positions, prompts and new tokens need {tokens};"
                " set 'tokens' of the prompts lower or choose another draft"
            )
        return NeuralDrafter(draft, vocabulary, tokens + nodes, nodes)
    if isinstance(spec, NgramDraftSpec):
        return NgramDrafter(loaded.counts(find("ngram")), spec.context_weight, target.device)
    layer = loaded.distilled(find("distilled"))
    _require_choices(branching, len(layer.tokens))
    distilled = DistilledDrafter(layer, target, tokens + nodes, nodes)
    if isinstance(spec, DistilledDraftSpec):
        return distilled
    ngram = NgramDrafter(loaded.counts(find("ngram")), spec.context_weight, target.device)
    return HybridDrafter(distilled, ngram, spec.share, spec.sure)


def _distilled(target: LayeredLM, manifest: Path) -> DistilledDraft:
    folder, _ = open_artefact(manifest)
    return DistilledDraft.load(folder / DRAFT_FILE, target)


def _neural(target: LayeredLM, compute: Compute, model: Path, draft: Path) -> LayeredLM:
    if load_tokenizer(model).get_vocab() != load_tokenizer(draft).get_vocab():
        raise UserError(f"{draft}: the draft's vocabulary is not the target's; choose a draft that shares it")
    return fastest(load_model(draft, compute, target.device))[0]


def _require_choices(branching: int, vocabulary: int) -> None:
    if branching > vocabulary:
        raise UserError(
            f"shape.branching: {branching} children per node, but the drafter knows {vocabulary} tokens;"
            " lower it"
        )
