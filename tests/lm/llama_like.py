"""A tokenizer like Llama's, which puts a BOS token before a text and a space before its first word."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from ablations.lm.models.random import make_random_model
from ablations.specs.lm import RandomModel

BOS, EOS = "<s>", "</s>"
SYMBOLS = ("<unk>", BOS, EOS, "▁", "\n", *(chr(code) for code in range(33, 127)))
ODD_SETTINGS = {
    "truncation_side": "left",
    "padding_side": "left",
    "add_prefix_space": True,
    "add_bos_token": False,
    "add_eos_token": True,
    "split_special_tokens": True,
    "clean_up_tokenization_spaces": True,
}


def llama_like(bos: bool = True, eos: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character; `eos` puts EOS after every text, as for training."""
    tokenizer = Tokenizer(
        BPE(vocab={symbol: index for index, symbol in enumerate(SYMBOLS)}, merges=[], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    single = [*[BOS] * bos, "$A", *[EOS] * eos]
    tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[(BOS, SYMBOLS.index(BOS)), (EOS, SYMBOLS.index(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, unk_token="<unk>", pad_token=EOS
    )


def save_llama_like(
    folder: Path, chat_template: str | None = None, layers: int = 2, **tokenizer: bool
) -> Path:
    """Save a tiny checkpoint with such a tokenizer, whose stored settings differ from a study's."""
    model, _ = make_random_model(RandomModel(source="random", architecture="llama", layers=layers))
    model.save_pretrained(folder)
    instance = llama_like(**tokenizer)
    instance.chat_template = chat_template
    instance.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | ODD_SETTINGS))
    # Settings that some training scripts leave behind.
    content = json.loads((folder / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Left", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 2,
        "pad_type_id": 0,
        "pad_token": EOS,
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder
