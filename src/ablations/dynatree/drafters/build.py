"""From the spec of a drafter to the drafter, its artefacts opened and its buffers allocated."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.core.record import read_contract
from ablations.dynatree.distilling.model import DRAFT_FILE, DistilledDraft
from ablations.dynatree.drafters.calibrated import CalibratedDrafter
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
from ablations.specs.dynatree.calibrate_drafter import Acceptance
from ablations.specs.lm import Compute

ACCEPTANCE_FILE = "acceptance.json"

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
        acceptance: What turned out of a drafter's proposals, of a manifest.
        counts: N-gram counts of a manifest.
        distilled: Distilled draft of a manifest.
        neural: Draft model, of the manifests of the target and of the draft.
    """

    def __init__(self, target: LayeredLM, compute: Compute) -> None:
        self.target = target
        self.compute = compute
        self.acceptance = cache(_acceptance)
        self.counts = cache(partial(NgramCounts.load, vocabulary=target.lm_head.out_features))
        self.distilled = cache(partial(_distilled, target))
        self.neural = cache(partial(_neural, target, compute))


def build_drafter(
    spec: DraftSpec,
    find: Find,
    loaded: Loaded,
    tokens: int,
    nodes: int,
    branching: int,
    calibrated: bool = False,
) -> Drafter:
    """The drafter of a spec; its state is its own.

    Args:
        spec: Which drafter.
        find: Where artefacts lie.
        loaded: What drafters are made of, and the model that decides.
        tokens: Most tokens of a prompt and its continuation.
        nodes: Most nodes of a tree below its root.
        branching: Most children of a node.
        calibrated: Whether probabilities are those that turned out on validation text.

    Raises:
        UserError: another vocabulary than the target's, too few positions, or fewer tokens than children.
    """
    target = loaded.target
    vocabulary = target.lm_head.out_features
    _require_choices(branching, vocabulary)

    def stated(drafter: Drafter, kind: str) -> Drafter:
        if not calibrated:
            return drafter
        return CalibratedDrafter(drafter, loaded.acceptance(find(f"{kind}_acceptance")), target.device)

    if isinstance(spec, PromptLookup):
        return stated(PromptLookupDrafter(spec, target.device), spec.kind)
    if isinstance(spec, NeuralDraftSpec):
        draft = loaded.neural(find("model"), find("draft"))
        positions = draft.config.max_position_embeddings
        if positions < tokens:
            raise UserError(
                f"{find('draft')}: the draft has {positions} positions, prompts and new tokens need {tokens};"
                " set 'tokens' of the prompts lower or choose another draft"
            )
        return stated(NeuralDrafter(draft, vocabulary, tokens + nodes, nodes), spec.kind)
    if not isinstance(spec, DistilledDraftSpec):
        counts = loaded.counts(find("ngram"))
        ngram = stated(NgramDrafter(counts, spec.context_weight, target.device), "ngram")
        if isinstance(spec, NgramDraftSpec):
            return ngram
    layer = loaded.distilled(find("distilled"))
    _require_choices(branching, len(layer.tokens))
    distilled = stated(DistilledDrafter(layer, target, tokens + nodes, nodes), "distilled")
    if isinstance(spec, DistilledDraftSpec):
        return distilled
    return HybridDrafter(distilled, ngram, spec.share, spec.sure)


def _acceptance(manifest: Path) -> Acceptance:
    folder, _ = open_artefact(manifest)
    return read_contract(folder / ACCEPTANCE_FILE, Acceptance)


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
