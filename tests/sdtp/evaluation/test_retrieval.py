"""Probes: what a prefilled model answers."""

import pytest
import torch
from torch.nn import functional as F

from ablations.sdtp.evaluation.retrieval import probe
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.specs.sdtp.counts import Preserve
from tests.sdtp.naive import naive_greedy, naive_logits
from tests.sdtp.random_models import VOCABULARY


def test_probe_says_what_greedy_decoding_says(lm, ids):
    """Five greedy tokens by the plain forward of `transformers`, and one of them changed."""
    said = ids
    for _ in range(5):
        logits = lm.model(said[None], use_cache=False).logits[0, -1]
        said = torch.cat([said, logits.argmax()[None]])
    right = said[60:]
    logits = lm.model(said[None], use_cache=False).logits[0, 59:-1].float()
    cache = lm.new_cache(65)
    hit, nll = probe(lm, prefill(lm, ids, cache), cache, right)
    assert hit is True
    assert nll == pytest.approx(F.cross_entropy(logits, right).item(), rel=1e-4)
    wrong = right.clone()
    wrong[3] = (wrong[3] + 1) % VOCABULARY
    cache.truncate(0)
    hit, worse = probe(lm, prefill(lm, ids, cache), cache, wrong)
    assert hit is False
    assert worse > nll


@pytest.mark.parametrize("positions", ["original", "packed"])
def test_probe_after_a_pruned_prompt_says_what_float64_says(lm, ids, positions):
    def norm(stage, states, indices=None):
        return states.norm(dim=-1)

    where = ([1, 3], (0.5, 0.5), 2, 5, positions)
    answer, gap = naive_greedy(lm, norm, ids, 5, *where)
    assert gap > 1e-3, "a tie in this test; change the seed of the ids"
    answer = torch.tensor(answer)
    logits, _ = naive_logits(lm, norm, ids, answer, *where)
    cache = lm.new_cache(65)
    pruning = Pruning((1, 3), (0.5, 0.5), Preserve(head=2, tail=5), positions)
    hit, nll = probe(lm, prefill(lm, ids, cache, pruning, norm), cache, answer)
    assert hit is True
    assert nll == pytest.approx(F.cross_entropy(logits[:-1], answer).item(), abs=1e-4)
