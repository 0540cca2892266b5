import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.cost import planned_rows, prefill_flops
from ablations.sdtp.pruned.matching import matched
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.pruner import Pruner
from ablations.specs.sdtp.counts import Preserve
from ablations.specs.sdtp.evaluate import Match

LAYERS = (4, 7, 10, 12, 15, 18, 21, 23, 26, 29)
PRESERVE = Preserve(head=4, tail=16)
TOKENS = 768


@pytest.mark.parametrize(("scores", "kept"), [("learned", 193), ("attention_last", 194), ("recent", 192)])
def test_one_stage_with_the_flops_of_ten(scores, kept):
    """At the size of the default study's model; its scorer is one of a single stage."""
    size = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    with torch.device("meta"):
        lm = LayeredLM(AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=49152, **size, **heads)))
    which = {
        "learned": lambda: importance.learned(Pruner(576, 128, 1)),
        "attention_last": lambda: importance.attention(lm, (4,), 1, "original"),
        "recent": importance.recent,
    }[scores]()

    def flops(pruning):
        rows, scored = planned_rows(pruning, TOKENS, lm.num_layers)
        return prefill_flops(lm, rows) + which.flops(TOKENS, scored)

    match = Match(quantity="flops", layers=LAYERS, keep_ratios=(0.7,) * 10, preserve=PRESERVE)
    one = matched(Pruning((4,), (0.5,), PRESERVE), match, flops)
    ten = Pruning(LAYERS, (0.7,) * 10, PRESERVE)
    # One token more or less at 26 layers is 0.4 % of them.
    assert flops(one) == pytest.approx(flops(ten), rel=0.002)
    assert 0.3 < flops(ten) / prefill_flops(lm, [TOKENS] * 30) < 0.4
    assert one.counts(TOKENS) == (kept,)
