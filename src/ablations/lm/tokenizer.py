"""Text to token ids as a study means it, whatever settings a checkpoint's tokenizer brings along.

A text is cut at its end, never padded, and begins with what the tokenizer itself puts before a text: a BOS
token (Llama, Mistral) or nothing (SmolLM2, Qwen, GPT-NeoX). Nothing is put after it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ablations.lm.loading import ADVICE, readable
from ablations.study.errors import UserError

_MARK = "Why?"
# For templates that write the date: a prompt is the same on every day.
_DAY = {"%Y": "2024", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July", "%A": "Friday"}
_CLOCK = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f" | replace('{code}', '{value}')" for code, value in _DAY.items())
    + " }}{% endmacro +%}"
)


def read_tokenizer(
    path: str | Path, advice: str = ADVICE, name: str | None = None, **keywords: Any
) -> PreTrainedTokenizerFast:
    """Read a tokenizer exactly as its ``tokenizer.json`` describes it, with the settings of `settled`.

    Args:
        path: Folder or hub name.
        advice: What to do where it cannot be read.
        name: What errors call it, if not by `path`.
        keywords: Of `from_pretrained`.

    Raises:
        UserError: it cannot be read.
    """
    # Not AutoTokenizer: it may rebuild the pre-tokenizer from the model type instead of reading it.
    with readable(f"'{name or path}': its tokenizer", advice):
        return settled(PreTrainedTokenizerFast.from_pretrained(path, **keywords))


def settled(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Give a tokenizer the settings that a study means, in place; returns it."""
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    # Chat templates write special tokens as text.
    tokenizer.split_special_tokens = False
    tokenizer.clean_up_tokenization_spaces = False
    special = tokenizer("x", return_special_tokens_mask=True)
    mask = special.special_tokens_mask
    count = mask.index(0)
    if any(mask[count:]):
        front = special.tokens()[:count]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*front, "$A"], special_tokens=list(zip(front, special.input_ids, strict=False))
        )
    return tokenizer


def start_of_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that a settled tokenizer puts before a text; empty for none."""
    return tokenizer("").input_ids


def start_as_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a settled tokenizer puts before a text, for a reader."""
    return "".join(tokenizer.convert_ids_to_tokens(start_of_text(tokenizer)))


def within_text(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer of a text that goes on after another: one that puts no space before it.

    Tokenizers that came from SentencePiece do; at the beginning of a prompt it belongs there.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: state[name] for name in ("normalizer", "pre_tokenizer")}
    without = {name: _without_space(part) for name, part in parts.items()}
    if without == parts:
        return tokenizer
    return settled(PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state | without))))


def _without_space(part: Mapping[str, Any] | None) -> dict[str, Any] | None:
    match part:
        case None | {"type": "Prepend"}:
            return None
        case {"type": "Sequence"}:
            (key,) = part.keys() - {"type"}
            return {**part, key: [inner for each in part[key] if (inner := _without_space(each))]}
        case {"type": "Metaspace"}:
            return {**part, "prepend_scheme": "never"}
        case {"type": "ByteLevel"}:
            return {**part, "add_prefix_space": False}
    return dict(part)


def user_turn(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A user's turn in the chat template, up to where the answer begins, with the BOS token of the template.

    Args:
        tokenizer: It has a chat template.
        text: What the user says.

    Raises:
        UserError: the template does not compile, fails, or leaves out what the user says.
    """
    problem = "leaves out what the user says"
    for content in (str, _blocks):
        try:
            if _MARK in _rendered(tokenizer, content(_MARK)):
                return _rendered(tokenizer, content(text))
        except Exception as error:
            # A template is a program, and may raise anything.
            problem = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise UserError(
        f"the target's chat template {problem}; mend its chat_template, or set 'chat' of the prompts to false"
    )


def _blocks(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _rendered(tokenizer: PreTrainedTokenizerBase, content: str | list[dict[str, str]]) -> str:
    turn = [{"role": "user", "content": content}]
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = _CLOCK + template
    return tokenizer.apply_chat_template(
        turn, chat_template=template, tokenize=False, add_generation_prompt=True
    )


def require_rows(tokenizer: PreTrainedTokenizerFast, rows: int, name: str | Path) -> PreTrainedTokenizerFast:
    """Check that every token but one for padding has a row of the embedding; more rows are fine.

    Args:
        tokenizer: The tokenizer.
        rows: Rows of the model's embedding.
        name: The checkpoint, for the error.

    Returns:
        The tokenizer, without a padding token that has no row.

    Raises:
        UserError: tokens were added, and the embedding was not resized.
    """
    unused = {tokenizer.pad_token, tokenizer.unk_token}
    beyond = sorted(token for token, number in tokenizer.get_vocab().items() if number >= rows)
    if set(beyond) - unused:
        raise UserError(
            f"{name}: {len(beyond)} tokens of the tokenizer ({', '.join(beyond[:3])}) have no row in the"
            f" embedding of {rows}; resize it (model.resize_token_embeddings(len(tokenizer))) and save the"
            " model again, or remove them"
        )
    return without_added(tokenizer, rows)


def without_added(tokenizer: PreTrainedTokenizerFast, rows: int) -> PreTrainedTokenizerFast:
    """The tokenizer without added tokens that have no row of an embedding: such text is text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in state["added_tokens"] if token["id"] < rows]
    if len(kept) == len(state["added_tokens"]):
        return tokenizer
    contents = {token["content"] for token in kept}
    roles = {
        role: str(token) for role, token in tokenizer.special_tokens_map.items() if str(token) in contents
    }
    whole = Tokenizer.from_str(json.dumps(state | {"added_tokens": kept}))
    return settled(
        PreTrainedTokenizerFast(tokenizer_object=whole, chat_template=tokenizer.chat_template, **roles)
    )
