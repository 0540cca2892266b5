"""A tiny randomly initialised causal LM with a byte-level tokenizer, for tests of the workflow."""

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ablations.core.errors import UserError
from ablations.specs.lm import RandomModel

SPECIAL_TOKENS = ("<|endoftext|>", "<|pad|>")
MAX_POSITIONS = 4096


def make_random_model(source: RandomModel) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Initialise a model; its weights depend on the source's seed and sizes only.

    Raises:
        UserError: the width of a head is not an even number (RoPE rotates pairs).
    """
    if source.hidden_size % (2 * source.heads):
        raise UserError(
            f"'hidden_size' {source.hidden_size} is no multiple of twice 'heads' ({source.heads}); change one"
        )
    tokenizer = _byte_tokenizer()
    kv_heads = source.heads // 2 if source.heads % 2 == 0 else source.heads
    # GPT-NeoX has no grouped heads, but its configuration would store the key and mislead its readers.
    grouped = {} if source.architecture == "gpt_neox" else {"num_key_value_heads": kv_heads}
    config = AutoConfig.for_model(
        source.architecture,
        vocab_size=len(tokenizer),
        hidden_size=source.hidden_size,
        intermediate_size=2 * source.hidden_size,
        num_hidden_layers=source.layers,
        num_attention_heads=source.heads,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **grouped,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model, tokenizer


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    symbols = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end, padding = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, bos_token=end, pad_token=padding
    )
