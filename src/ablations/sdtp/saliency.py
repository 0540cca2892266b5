"""Job `saliency`: how much the LM loss depends on each token's state at the input of each pruning layer."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.job import Run, main
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus, windows
from ablations.lm.device import configure
from ablations.lm.document import Document
from ablations.sdtp.retrieval.prompts import ConfigKeys, retrieval_prompts
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.table import SALIENCY_FILE
from ablations.specs.lm import Split
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.retrieval import RetrievalPrompts
from ablations.specs.sdtp.saliency import SaliencySpec, WindowKind

TOKENS_KEY = "sdtp.saliency.tokens"


class LossWindow(NamedTuple):
    """A window whose saliency is computed.

    Attributes:
        document: Identifier of its document.
        kind: What it is cut from.
        ids: ``[tokens]`` int64, prompt and continuation, on the CPU.
        continuation: Tokens after the prompt.
    """

    document: str
    kind: WindowKind
    ids: Tensor
    continuation: int


def saliency(run: Run[SaliencySpec]) -> None:
    """Compute the saliency of windows, one per document, and write the table.

    Raises:
        UserError: there are too few documents, prompts or continuations have no room for their parts, the
            model lacks a layer or positions, or a saliency is not finite.
    """
    spec = run.spec
    device = configure(spec.compute)
    table_windows = loss_windows(
        spec, load_tokenizer(run.job.path("model")), read_corpus(run.job.path("text"))
    )
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    lm.require_positions(spec.tokens, TOKENS_KEY)
    saliencies, losses = [], defaultdict(list)
    for window in tqdm(table_windows, desc="saliency", mininterval=2):
        # The first token of a window has no NLL, since no token comes before it.
        tokens = window.continuation if spec.target.loss == "continuation" else window.ids.shape[0] - 1
        values, loss = window_saliency(lm, window.ids.to(device), spec.layers, tokens, spec.target.measure)
        if not values.isfinite().all():
            raise UserError(
                f"saliency of document '{window.document}' is not finite; use compute.dtype float32"
            )
        saliencies.append(_padded(values.cpu(), spec.tokens))
        losses[window.kind].append(loss)
    facts = {
        "tokens": spec.tokens,
        "nll": {kind: fmean(values) for kind, values in losses.items()},
        "kinds": [window.kind for window in table_windows],
        "documents": [window.document for window in table_windows],
    }
    with new_artefact(run, facts) as folder:
        tensors = {
            "ids": torch.stack([_padded(window.ids, spec.tokens) for window in table_windows]),
            "saliency": torch.stack(saliencies),
            "heldout": torch.arange(len(table_windows)) >= len(table_windows) - spec.heldout_documents,
            "continuations": torch.tensor([window.continuation for window in table_windows]),
        }
        save_file(tensors, folder / SALIENCY_FILE)


def loss_windows(
    spec: SaliencySpec, tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document]
) -> list[LossWindow]:
    """Training windows of text, of retrieval, and held-out windows of text.

    Args:
        spec: Which windows.
        tokenizer: Tokenizer of the model.
        documents: The text.

    Raises:
        UserError: there are too few documents, or prompts or continuations have no room for their parts.
    """

    def text(split: Split, count: int) -> list[LossWindow]:
        return [
            LossWindow(window.document, "text", window.ids, spec.continuation_tokens)
            for window in windows(documents, tokenizer, split, count, spec.tokens)
        ]

    return [
        *text("train", spec.documents),
        *_retrieval_windows(spec, tokenizer, documents),
        *text("heldout", spec.heldout_documents),
    ]


def _retrieval_windows(
    spec: SaliencySpec, tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document]
) -> list[LossWindow]:
    if spec.retrieval is None:
        return []
    prompts = RetrievalPrompts(
        tokens=spec.tokens - spec.continuation_tokens,
        kinds=spec.retrieval.kinds,
        depths=spec.retrieval.depths,
    )
    keys = ConfigKeys(count="sdtp.saliency.retrieval.count", tokens=TOKENS_KEY)
    retrieval = retrieval_prompts(tokenizer, documents, "train", prompts, spec.retrieval.count, keys)
    longest = max(prompt.answer.shape[0] for prompt in retrieval)
    if longest > spec.continuation_tokens:
        raise UserError(
            f"sdtp.saliency.continuation_tokens: {spec.continuation_tokens} tokens have no room for an answer"
            f" of {longest} (sdtp.saliency.retrieval); raise it"
        )
    return [
        LossWindow(
            prompt.document,
            prompt.kind,
            torch.cat([prompt.prompt, prompt.answer]),
            prompt.answer.shape[0],
        )
        for prompt in retrieval
    ]


def _padded(values: Tensor, tokens: int) -> Tensor:
    """``[..., tokens]``, with zeros at the end."""
    return F.pad(values, (0, tokens - values.shape[-1]))


if __name__ == "__main__":
    main("ablations.sdtp.saliency", SaliencySpec, saliency, __doc__)
