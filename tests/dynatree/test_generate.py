"""`generate` as the reference: greedy decoding of the model, whatever settings the checkpoint stores."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ablations.dynatree.decoding import decode_autoregressive
from ablations.dynatree.generate import decode_with_transformers
from ablations.lm.layered import LayeredLM
from tests.dynatree.noisy_models import noisy_copy, tiny_model

PROMPT = [5, 9, 1, 30, 42, 7, 5, 9, 1, 30]
NEW_TOKENS = 24
EOS = 96
# Settings of generation_config.json that make `generate` something other than plain greedy decoding.
STORED_SETTINGS = {
    "no_repeat_ngram_size": 2,
    "repetition_penalty": 5.0,
    "encoder_no_repeat_ngram_size": 1,
    "stop_strings": ["a"],
    "prompt_lookup_num_tokens": 5,
    "suppress_tokens": list(range(48)),
    "begin_suppress_tokens": list(range(96)),
    "bad_words_ids": [[token] for token in range(48)],
    "sequence_bias": [[[3], 100.0]],
    "forced_eos_token_id": EOS,
    "forced_bos_token_id": 3,
    "exponential_decay_length_penalty": [1, 9.0],
    "min_new_tokens": NEW_TOKENS,
    "guidance_scale": 3.0,
    "max_time": 1e-9,
    "num_beams": 3,
    "cache_implementation": "static",
    "use_cache": False,
}


def saved(folder: Path, model: LayeredLM, **files: dict) -> Path:
    """The checkpoint as `save_pretrained` leaves it, with further keys in its JSON files."""
    model.model.save_pretrained(folder)
    for name, keys in files.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return folder


def loaded(folder: Path) -> LayeredLM:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", local_files_only=True)
    return LayeredLM(model.eval().requires_grad_(False))


def rows_of_forwards(lm: LayeredLM) -> list[int]:
    rows: list[int] = []
    lm.embedding.register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].shape[1]))
    return rows


@torch.inference_mode()
@pytest.mark.parametrize("key", STORED_SETTINGS)
def test_settings_of_a_checkpoint_for_generate_change_nothing(key, tmp_path):
    target = loaded(saved(tmp_path, tiny_model("llama"), generation_config={key: STORED_SETTINGS[key]}))
    expected = decode_autoregressive(target, target.new_cache(64), PROMPT, NEW_TOKENS).tokens
    rows = rows_of_forwards(target)
    generation = decode_with_transformers(target, PROMPT, NEW_TOKENS)
    assert generation.tokens == expected
    assert len(generation.tokens) == NEW_TOKENS
    # One row a forward after the prefill: with a cache, and without candidates.
    assert rows == [len(PROMPT)] + [1] * (NEW_TOKENS - 1)


@torch.inference_mode()
@pytest.mark.parametrize("keys", [{"use_cache": False}, {"no_repeat_ngram_size": 2, "num_beams": 2}])
def test_settings_in_a_models_configuration_change_nothing(keys, tmp_path):
    folder = saved(tmp_path, tiny_model("llama"), config=keys)
    (folder / "generation_config.json").unlink()
    target = loaded(folder)
    expected = decode_autoregressive(target, target.new_cache(64), PROMPT, NEW_TOKENS).tokens
    rows = rows_of_forwards(target)
    assert decode_with_transformers(target, PROMPT, NEW_TOKENS).tokens == expected
    assert rows == [len(PROMPT)] + [1] * (NEW_TOKENS - 1)


@torch.inference_mode()
def test_the_ends_of_a_sequence_stay(tmp_path):
    plain = tiny_model("llama")
    whole = decode_autoregressive(plain, plain.new_cache(64), PROMPT, NEW_TOKENS).tokens
    end = whole[9]
    of_generation = saved(tmp_path / "a", plain, generation_config={"eos_token_id": [end, EOS]})
    of_model = saved(tmp_path / "b", plain, config={"eos_token_id": end})
    (of_model / "generation_config.json").unlink()
    for target in map(loaded, (of_generation, of_model)):
        assert end in target.eos_ids
        expected = whole[: whole.index(end) + 1]
        assert decode_autoregressive(target, target.new_cache(64), PROMPT, NEW_TOKENS).tokens == expected
        assert decode_with_transformers(target, PROMPT, NEW_TOKENS).tokens == expected


@torch.inference_mode()
@pytest.mark.parametrize(
    "key", ["no_repeat_ngram_size", "suppress_tokens", "prompt_lookup_num_tokens", "use_cache"]
)
def test_settings_of_an_assistant_for_generate_change_nothing(key, tmp_path):
    target = tiny_model("llama")
    options = {
        "num_assistant_tokens": 4,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.0,
    }
    draft = noisy_copy(target, 0.05)
    odd = loaded(saved(tmp_path, draft, generation_config={key: STORED_SETTINGS[key]}))
    clean, odd_generation = (
        decode_with_transformers(target, PROMPT, NEW_TOKENS, assistant=assistant.model, options=options)
        for assistant in (draft, odd)
    )
    assert odd_generation.tokens == clean.tokens
    assert odd_generation.accepted == clean.accepted
    assert sum(clean.accepted) > 0
