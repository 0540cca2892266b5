"""Code that runs on the meta device never makes the host wait for a device.

Tensors on the meta device have shapes and no values, and reading a value raises.
"""

import pytest
import torch

from ablations.sdtp.pruned.decoding import greedy_decode
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.pruner import Pruner
from ablations.specs.sdtp.counts import Preserve
from tests.sdtp.random_models import LAYERS


@pytest.mark.parametrize("scores", ["learned", "learned_distance", "attention"])
def test_pruned_prefill_and_decoding_ask_for_no_value(lm, scores):
    lm.model.to("meta")
    ids = torch.empty(60, dtype=torch.int64, device="meta")
    if scores == "attention":
        which = importance.attention(lm, (2, 4), 8, "original")
    else:
        which = getattr(importance, scores)(Pruner(lm.config.hidden_size, 16, 2).to("meta"))
    scorer = which.scorer(importance.Prompt(ids, 0))
    pruning = Pruning((2, 4), (0.5, 0.5), Preserve(head=2, tail=3))
    cache = lm.new_cache(70)
    prefilled = prefill(lm, ids, cache, pruning, scorer)
    assert prefilled.logits.device.type == "meta"
    assert greedy_decode(lm, prefilled, cache, 4).shape == (4,)
    assert cache.lengths == [63, 63, 33, 33, 18, 18]
    assert len(cache.lengths) == LAYERS


def test_rules_that_count_do_ask(llama):
    """Top-p reads its number of kept tokens, which raises on the meta device."""
    llama.model.to("meta")
    ids = torch.empty(60, dtype=torch.int64, device="meta")
    pruning = Pruning((2,), (0.5,), Preserve(head=2, tail=3), selection="top_p", values=(0.9,))
    scorer = importance.hidden_norm().scorer(importance.Prompt(ids, 0))
    with pytest.raises((RuntimeError, NotImplementedError)):
        prefill(llama, ids, llama.new_cache(70), pruning, scorer)
