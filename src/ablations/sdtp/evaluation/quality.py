"""Quality of arms side by side: each prompt is read once by the unpruned model, then by every arm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ablations.lm.cache import StaticCache
from ablations.lm.corpus import Window
from ablations.lm.finite import require_finite
from ablations.lm.layered import LayeredLM
from ablations.sdtp.evaluation.crash import arm_at_work, arm_failures
from ablations.sdtp.evaluation.retrieval import probe
from ablations.sdtp.evaluation.series import OpenSeries, by_item
from ablations.sdtp.evaluation.unpruned import Unpruned, unpruned_prefill
from ablations.sdtp.pruned.continuation import continuation_states, log_probabilities, quality
from ablations.sdtp.pruned.cost import kv_bytes
from ablations.sdtp.retrieval.prompts import RetrievalPrompt
from ablations.sdtp.scores.importance import Prompt
from ablations.specs.sdtp.evaluate import RetrievalSeries, TextSample, TextSeries
from ablations.specs.sdtp.retrieval import RetrievalProbe

FIRST_RETRIEVAL = 1_000_000
"""Number of the first retrieval prompt among all prompts: random scores of these prompts are of their own."""


@dataclass(frozen=True)
class UnprunedText:
    """The unpruned model on a window.

    Attributes:
        prefill: The prefill of its prompt.
        log_probabilities: ``[continuation, vocabulary]`` float32, of each token of the continuation.
        nll: Mean NLL of the continuation, nats per token.
    """

    prefill: Unpruned
    log_probabilities: Tensor
    nll: float


def unpruned_text(
    lm: LayeredLM, prompt: Prompt, document: str, cache: StaticCache, layers: Sequence[int] = ()
) -> UnprunedText:
    """Read a window with the unpruned model.

    Args:
        lm: Model.
        prompt: Prompt of the window, with the continuation that follows it.
        document: Document of the window, for the message.
        cache: Emptied first.
        layers: Layers whose inputs are kept (`unpruned_prefill`).

    Raises:
        UserError: the NLL is NaN or infinite.
    """
    prefill = unpruned_prefill(lm, prompt, cache, layers)
    states = continuation_states(lm, prefill.prefilled, cache, prompt.following)
    predicted = log_probabilities(lm, states)
    nll = F.nll_loss(predicted, prompt.following).item()
    require_finite(math.isfinite(nll), f"the NLL of document '{document}'", lm.dtype)
    return UnprunedText(prefill, predicted, nll)


def measure_text(lm: LayeredLM, group: Sequence[OpenSeries[TextSeries, Window]], bar: tqdm) -> None:
    """Measure the quality of arms on the same windows.

    Args:
        lm: Model of all.
        group: Series of the same windows.
        bar: Advances by one per series and window.

    Raises:
        UserError: the NLL of the unpruned model is NaN or infinite.
    """
    tokens = group[0].spec.prompt_tokens
    capacity = tokens + group[0].spec.continuation_tokens
    cache, unpruned_cache = lm.new_cache(capacity), lm.new_cache(capacity)
    for number, window, due in by_item(group):
        first_layers = [one.arm.pruning.layers[0] for one in due]
        ids = window.ids.to(lm.device)
        prompt = Prompt(ids[:tokens], number, ids[tokens:])
        unpruned = unpruned_text(lm, prompt, window.document, unpruned_cache, first_layers)
        check = partial(unpruned_prefill, lm, prompt, cache)
        for one in due:
            bar.set_postfix_str(one.member.label, refresh=False)
            with arm_at_work(one.member, number, check):
                sample, kept = _read(one, window.document, unpruned, cache)
                one.member.add(number, sample, {"document": window.document, "kept": kept})
            bar.update()


def measure_retrieval(
    lm: LayeredLM, group: Sequence[OpenSeries[RetrievalSeries, RetrievalPrompt]], bar: tqdm
) -> None:
    """Ask arms for the same facts.

    Args:
        lm: Model of all.
        group: Series of the same retrieval prompts.
        bar: Advances by one per series and prompt.

    Raises:
        UserError: logits of the unpruned model are NaN or infinite.
    """
    capacity = max(item.length for one in group for item in one.items)
    cache, unpruned_cache = lm.new_cache(capacity), lm.new_cache(capacity)
    for number, item, due in by_item(group):
        first_layers = [one.arm.pruning.layers[0] for one in due]
        answer = item.answer.to(lm.device)
        prompt = Prompt(item.prompt.to(lm.device), FIRST_RETRIEVAL + number, answer)
        unpruned = unpruned_prefill(lm, prompt, unpruned_cache, first_layers)
        reference_hit, reference_nll = probe(lm, unpruned.prefilled, unpruned_cache, answer)
        check = partial(unpruned_prefill, lm, prompt, cache)
        for one in due:
            bar.set_postfix_str(one.member.label, refresh=False)
            with arm_at_work(one.member, number, check):
                with arm_failures():
                    prefilled = one.arm.prefill_from(unpruned, cache)
                    hit, nll = probe(lm, prefilled, cache, answer)
                sample = RetrievalProbe(
                    document=item.document,
                    kind=item.kind,
                    depth=item.depth,
                    hit=hit,
                    nll=nll,
                    reference_hit=reference_hit,
                    reference_nll=reference_nll,
                )
                one.member.add(number, sample)
            bar.update()


def _read(
    series: OpenSeries[TextSeries, Window],
    document: str,
    unpruned: UnprunedText,
    cache: StaticCache,
) -> tuple[TextSample, list[int]]:
    """Sample of one window, and the prompt indices that survived every stage.

    Raises:
        ArmCrashError: the pruned prefill or its continuation raised.
        UserError: the quality is NaN or infinite.
    """
    arm, prompt = series.arm, unpruned.prefill.prompt
    with arm_failures():
        prefilled = arm.prefill_from(unpruned.prefill, cache)
        rows = tuple(cache.lengths)
        states = continuation_states(arm.lm, prefilled, cache, prompt.following)
    predicted = log_probabilities(arm.lm, states)
    result = quality(predicted, unpruned.log_probabilities, prompt.following)
    result.require_finite(document, arm.lm.dtype)
    sample = TextSample(
        document=document,
        nll=result.nll,
        reference_nll=unpruned.nll,
        agreement=result.agreement,
        kl=result.kl,
        living=rows,
        flops=arm.flops(prompt.ids.shape[0], rows, prefilled.scored),
        kv_bytes=kv_bytes(cache, rows),
    )
    return sample, prefilled.kept.tolist()
