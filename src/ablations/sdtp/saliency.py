"""Job `saliency`: how much the LM loss depends on each token's state at the input of each pruning layer."""

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.job import Run, main
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus, windows
from ablations.lm.device import configure
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.table import SALIENCY_FILE
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.saliency import SaliencySpec


def saliency(run: Run[SaliencySpec]) -> None:
    """Compute the saliency of one window per document, and write the table.

    Raises:
        UserError: there are too few documents, the model lacks a layer or positions, or a saliency is not
            finite.
    """
    spec = run.spec
    device = configure(spec.compute)
    tokenizer = load_tokenizer(run.job.path("model"))
    documents = read_corpus(run.job.path("text"))
    table_windows = windows(documents, tokenizer, "train", spec.documents, spec.tokens)
    table_windows += windows(documents, tokenizer, "heldout", spec.heldout_documents, spec.tokens)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    lm.require_positions(spec.tokens, "saliency.tokens")
    # The first token of a window has no NLL, since no token comes before it.
    loss_tokens = spec.continuation_tokens if spec.target.loss == "continuation" else spec.tokens - 1
    saliencies, losses = [], []
    for window in tqdm(table_windows, desc="saliency", mininterval=2):
        values, loss = window_saliency(
            lm, window.ids.to(device), spec.layers, loss_tokens, spec.target.measure
        )
        if not values.isfinite().all():
            raise UserError(
                f"saliency of document '{window.document}' is not finite; use compute.dtype float32"
            )
        saliencies.append(values.cpu())
        losses.append(loss)
    facts = {
        "windows": spec.documents,
        "heldout_windows": spec.heldout_documents,
        "tokens": spec.tokens,
        "nll": sum(losses) / len(losses),
        "documents": [window.document for window in table_windows],
    }
    with new_artefact(run, facts) as folder:
        tensors = {
            "ids": torch.stack([window.ids for window in table_windows]),
            "saliency": torch.stack(saliencies),
            "heldout": torch.arange(len(table_windows)) >= spec.documents,
        }
        save_file(tensors, folder / SALIENCY_FILE)


if __name__ == "__main__":
    main("ablations.sdtp.saliency", SaliencySpec, saliency, __doc__)
