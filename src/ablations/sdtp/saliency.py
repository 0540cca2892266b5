"""Job `saliency`: how much each token's state matters to the LM loss, at the input of each pruning layer."""

from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import Window, read_corpus, windows
from ablations.lm.device import configure
from ablations.lm.layered import LayeredLM
from ablations.sdtp.selection import require_layers
from ablations.sdtp.table import SALIENCY_FILE
from ablations.study.artefact import new_artefact
from ablations.study.contracts.sdtp import SaliencySpec
from ablations.study.errors import UserError
from ablations.study.job import Run, main


def window_saliency(
    lm: LayeredLM, ids: Tensor, layers: tuple[int, ...], continuation: int, measure: Literal["abs", "norm"]
) -> tuple[Tensor, float]:
    """Saliency of one window's tokens, by one forward and one backward (arXiv 2504.04514, eq. 3).

    The gradient is that of the continuation's NLL with respect to the hidden states alone; the model is
    frozen. What a prompt token does for its own neighbours is thereby left out: it is of no use once the
    prompt has been read.

    Args:
        lm: Frozen model.
        ids: ``[tokens]`` int64, on the model's device.
        layers: Layers whose input states are meant.
        continuation: How many tokens at the end the loss is about, fewer than all.
        measure: `abs` is |sum over hidden of gradient x state|, `norm` is |gradient| x |state|.

    Returns:
        ``[stages, tokens]`` float32 on the model's device, and the continuation's NLL in nats per token.
        Tokens of the continuation have values too, which mean nothing for pruning.
    """
    states = {}
    with torch.enable_grad():
        # The gradient of frozen weights is not wanted, so the graph begins at the embedded tokens.
        hidden = lm.embed(ids[None]).requires_grad_()
        rotary = lm.rotary(hidden, torch.arange(ids.shape[0], device=ids.device)[None])
        for layer in range(lm.num_layers):
            if layer in layers:
                states[layer] = hidden
            hidden = lm.layer(layer, hidden, rotary)
        logits = lm.head(hidden[:, -continuation - 1 : -1])[0]
        loss = F.cross_entropy(logits.float(), ids[-continuation:])
        gradients = torch.autograd.grad(loss, [states[layer] for layer in layers])
    state = torch.cat([states[layer].detach() for layer in layers]).float()
    gradient = torch.cat(gradients).float()
    if measure == "norm":
        return gradient.norm(dim=-1) * state.norm(dim=-1), loss.item()
    return (gradient * state).sum(-1).abs(), loss.item()


def saliency(run: Run[SaliencySpec]) -> None:
    """Compute the saliency of one window per document and write the table.

    Raises:
        UserError: float16, too few documents, layers that the model lacks, or a saliency that is not finite.
    """
    spec = run.spec
    if spec.compute.dtype == "float16":
        raise UserError("compute.dtype: float16 gradients underflow; use bfloat16 or float32")
    if spec.tokens <= spec.continuation_tokens:
        raise UserError(
            f"saliency.tokens: {spec.tokens} leave no prompt before saliency.continuation_tokens"
            f" ({spec.continuation_tokens}); raise it"
        )
    device = configure(spec.compute)
    tokenizer = load_tokenizer(run.job.path("model"))
    documents = read_corpus(run.job.path("text"))
    chosen: list[Window] = []
    for split, count in (("train", spec.documents), ("validation", spec.validation_documents)):
        chosen += windows(documents, tokenizer, split, count, spec.tokens)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    found, losses = [], []
    for window in tqdm(chosen, desc="saliency", mininterval=2):
        values, loss = window_saliency(
            lm, window.ids.to(device), spec.layers, spec.continuation_tokens, spec.measure
        )
        if not values.isfinite().all():
            raise UserError(
                f"saliency of document '{window.document}' is not finite; use compute.dtype float32"
            )
        found.append(values.cpu())
        losses.append(loss)
    facts = {
        "windows": spec.documents,
        "validation_windows": spec.validation_documents,
        "tokens": spec.tokens,
        "nll": sum(losses) / len(losses),
        "documents": [window.document for window in chosen],
    }
    with new_artefact(run, facts) as folder:
        tensors = {
            "ids": torch.stack([window.ids for window in chosen]),
            "saliency": torch.stack(found),
            "validation": torch.arange(len(chosen)) >= spec.documents,
        }
        save_file(tensors, folder / SALIENCY_FILE)


if __name__ == "__main__":
    main("ablations.sdtp.saliency", SaliencySpec, saliency, __doc__)
