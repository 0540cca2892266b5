import itertools
import math

import numpy as np
import pytest
import torch

from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.training.ranking import ndcg, overlap, rank, rank_heldout, spearman
from ablations.sdtp.training.states import UnprunedStates
from ablations.specs.sdtp.saliency import SaliencySpec
from ablations.specs.sdtp.train import PrunerSpec
from tests.sdtp.random_models import VOCABULARY

SALIENCY = np.array([0.1, 5.0, 0.3, 70.0])


def test_spearman_of_known_orders():
    assert spearman(SALIENCY**3, SALIENCY) == pytest.approx(1)
    assert spearman(-SALIENCY, SALIENCY) == pytest.approx(-1)
    # Ranks 1 3 2 4 against 2 3 1 4: 1 - 6 * (1 + 0 + 1 + 0) / (4 * 15).
    assert spearman(np.array([2.0, 3.0, 1.0, 4.0]), SALIENCY) == pytest.approx(0.8)
    assert spearman(np.zeros(4), SALIENCY) == 0


def test_ndcg_by_hand():
    assert ndcg(SALIENCY, SALIENCY) == 1
    # Scores put the tokens in the order 3, 2, 0, 1; quantiles are 1/4, 3/4, 2/4, 1.
    value = ndcg(np.array([2.0, 1.0, 3.0, 4.0]), SALIENCY)
    discounts = [1 / math.log2(place + 2) for place in range(4)]
    gained = sum(gain * discount for gain, discount in zip([1, 0.5, 0.25, 0.75], discounts, strict=True))
    ideal = sum(gain * discount for gain, discount in zip([1, 0.75, 0.5, 0.25], discounts, strict=True))
    assert value == pytest.approx(gained / ideal)


def test_ndcg_is_largest_for_the_order_of_saliency_and_least_for_its_reverse():
    values = [ndcg(np.array(order, dtype=float), SALIENCY) for order in itertools.permutations(range(4))]
    assert max(values) == ndcg(SALIENCY, SALIENCY) == 1
    assert min(values) == ndcg(-SALIENCY, SALIENCY) > 0


def test_overlap_by_hand():
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    assert overlap(scores, SALIENCY, 1) == 0
    assert overlap(scores, SALIENCY, 2) == 0.5
    assert overlap(scores, SALIENCY, 3) == pytest.approx(2 / 3)
    assert overlap(scores, SALIENCY, 4) == 1
    assert overlap(SALIENCY, SALIENCY, 0) == 1, "the single best token where a stage keeps none of its choice"


def test_random_scores_rank_nothing():
    generator = np.random.default_rng(0)
    saliency = generator.lognormal(sigma=3, size=(1, 4000))
    ranking = rank("d", generator.random((1, 4000)), saliency, [1000])
    assert ranking.spearman[0] == pytest.approx(0, abs=0.05)
    assert ranking.overlap[0] == pytest.approx(0.25, abs=0.05)
    assert ranking.ndcg[0] < 0.95


class Exact(Pruner):
    """Scores the tokens of known windows by a given table."""

    def __init__(self, states, values):
        super().__init__(32, 4, 0)
        self.states, self.values = states, values

    def forward(self, stage, states, distances=None):
        window = next(w for w, known in enumerate(self.states) if torch.allclose(known[stage], states))
        return self.values[window][stage]


def test_heldout_windows_are_ranked_on_unpruned_states_without_protected_tokens(llama):
    layers, prompt = (1, 3), 20
    ids = torch.randint(VOCABULARY, (4, 24), generator=torch.Generator().manual_seed(0))
    saliency = torch.rand(4, 2, 24, generator=torch.Generator().manual_seed(1))
    table = SaliencyTable(
        ids=ids,
        saliency=saliency,
        heldout=torch.tensor([False, True, False, True]),
        continuations=torch.full((4,), 4),
        kinds=("text",) * 4,
        documents=("a", "b", "c", "d"),
        spec=SaliencySpec(
            layers=layers,
            target={},
            documents=2,
            heldout_documents=2,
            tokens=24,
            continuation_tokens=4,
            compute={},
        ),
    )
    spec = PrunerSpec(
        layers=layers,
        losses={},
        keep_ratios=(0.7, 0.7),
        preserve={"head": 2, "tail": 3},
        width=4,
        epochs=1,
        batch=1,
        learning_rate=0.1,
        temperature=0.5,
        seed=0,
        compute={},
    )
    states, values = [], []
    for window in (1, 3):
        hidden = llama.model(ids[window : window + 1, :prompt], output_hidden_states=True).hidden_states
        states.append([hidden[layer][0] for layer in layers])
        exact = saliency[window, :, :prompt].clone()
        # Wrong scores of protected tokens, which must not matter.
        exact[:, :2] = -9
        exact[:, -3:] = -9
        values.append(exact)
    forwards = []
    llama.layers[0].register_forward_hook(lambda *_: forwards.append(1))
    pruners = [Exact(states, values), Exact(states, [-table for table in values])]
    right, reverse = rank_heldout(llama, table, spec, pruners, UnprunedStates(llama, table, layers))
    assert len(forwards) == 2, "one forward per window for all pruners"
    assert [ranking.document for ranking in right] == ["b", "d"]
    for ranking in right:
        assert ranking.spearman == pytest.approx((1, 1))
        assert ranking.ndcg == ranking.overlap == (1, 1)
    for ranking in reverse:
        assert ranking.spearman == pytest.approx((-1, -1))
        # Of 15 tokens the first stage keeps 9 (of 14 in all) and the second 5: 9 + 9 - 15 are common.
        assert ranking.overlap == pytest.approx((3 / 9, 0))
