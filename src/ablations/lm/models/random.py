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

from ablations.study.contracts.lm import RandomModel
from ablations.study.errors import UserError

SPECIAL_TOKENS = ("<|endoftext|>", "<|pad|>")
MAX_POSITIONS = 4096


def make_random_model(source: RandomModel) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Initialise a model from its seed alone.

    Raises:
        UserError: the heads do not divide the hidden size into even parts (RoPE rotates pairs).
    """
    if source.hidden_size % (2 * source.heads):
        raise UserError(
            f"'hidden_size' {source.hidden_size} is no multiple of twice 'heads' ({source.heads}); change one"
        )
    tokenizer = _byte_tokenizer()
    kv_heads = source.heads // 2 if source.heads % 2 == 0 else source.heads
    # GPT-NeoX has no grouped heads, but keeps the key and whoever reads it would believe it.
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
