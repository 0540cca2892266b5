"""Job `saliency`: how much each token's state matters to the LM loss, at the input of each pruning layer."""

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus, windows
from ablations.lm.device import configure
from ablations.sdtp.pruned.selection import require_layers
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.table import SALIENCY_FILE
from ablations.study.artefact import new_artefact
from ablations.study.contracts.sdtp import SaliencySpec
from ablations.study.errors import UserError
from ablations.study.job import Run, main


def saliency(run: Run[SaliencySpec]) -> None:
    """Compute the saliency of one window per document and write the table.

    Raises:
        UserError: float16, too few documents, layers or positions that the model lacks, or a saliency that
            is not finite.
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
    chosen = windows(documents, tokenizer, "train", spec.documents, spec.tokens)
    chosen += windows(documents, tokenizer, "heldout", spec.heldout_documents, spec.tokens)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    lm.require_positions(spec.tokens, "saliency.tokens")
    # Nothing comes before a window's first token, so it has no NLL.
    loss_tokens = spec.continuation_tokens if spec.target.loss == "continuation" else spec.tokens - 1
    found, losses = [], []
    for window in tqdm(chosen, desc="saliency", mininterval=2):
        values, loss = window_saliency(
            lm, window.ids.to(device), spec.layers, loss_tokens, spec.target.measure
        )
        if not values.isfinite().all():
            raise UserError(
                f"saliency of document '{window.document}' is not finite; use compute.dtype float32"
            )
        found.append(values.cpu())
        losses.append(loss)
    facts = {
        "windows": spec.documents,
        "heldout_windows": spec.heldout_documents,
        "tokens": spec.tokens,
        "nll": sum(losses) / len(losses),
        "documents": [window.document for window in chosen],
    }
    with new_artefact(run, facts) as folder:
        tensors = {
            "ids": torch.stack([window.ids for window in chosen]),
            "saliency": torch.stack(found),
            "heldout": torch.arange(len(chosen)) >= spec.documents,
        }
        save_file(tensors, folder / SALIENCY_FILE)


if __name__ == "__main__":
    main("ablations.sdtp.saliency", SaliencySpec, saliency, __doc__)
