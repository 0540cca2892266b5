"""Tokenizers with the settings of a study, whatever settings the checkpoint stores.

A text is truncated at its end and never padded. It begins with the ids that the tokenizer itself puts before
a text, a BOS token (Llama, Mistral) or nothing (SmolLM2, Qwen, GPT-NeoX), and nothing is put after it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ablations.core.errors import UserError
from ablations.lm.loading import ADVICE, loading_errors

_TEST_MESSAGE = "Why?"
# Date for chat templates that write one, so that a prompt is the same on every day.
_FIXED_DATE = {"%Y": "2024", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July", "%A": "Friday"}
_FIXED_DATE_MACRO = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f" | replace('{code}', '{value}')" for code, value in _FIXED_DATE.items())
    + " }}{% endmacro +%}"
)


def read_tokenizer(
    path: str | Path, advice: str = ADVICE, name: str | None = None, **keywords: Any
) -> PreTrainedTokenizerFast:
    """Read a tokenizer from its ``tokenizer.json`` and apply the study's settings.

    Args:
        path: Folder or hub name.
        advice: What to do if the tokenizer cannot be read, for the error.
        name: Name of the checkpoint in errors; None is `path`.
        keywords: Keywords of `from_pretrained`.

    Raises:
        UserError: the tokenizer cannot be read.
    """
    # Not AutoTokenizer: it may build the pre-tokenizer from the model type instead of reading it.
    with loading_errors(f"'{name or path}': its tokenizer", advice):
        return apply_study_settings(PreTrainedTokenizerFast.from_pretrained(path, **keywords))


def apply_study_settings(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Apply the study's settings to a tokenizer, in place; returns it."""
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    # Chat templates write special tokens as text, which must become those tokens.
    tokenizer.split_special_tokens = False
    tokenizer.clean_up_tokenization_spaces = False
    encoded = tokenizer("x", return_special_tokens_mask=True)
    mask = encoded.special_tokens_mask
    count = mask.index(0)
    if any(mask[count:]):
        prefix = encoded.tokens()[:count]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*prefix, "$A"], special_tokens=list(zip(prefix, encoded.input_ids, strict=False))
        )
    return tokenizer


def prefix_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the tokenizer puts before a text (BOS); empty if it puts none."""
    return tokenizer("").input_ids


def prefix_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokens of `prefix_ids`, as text for a reader."""
    return "".join(tokenizer.convert_ids_to_tokens(prefix_ids(tokenizer)))


def without_leading_space(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer for a text that continues another: it puts no space before the text.

    Tokenizers converted from SentencePiece put one there, which is right only at the beginning of a prompt.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: state[name] for name in ("normalizer", "pre_tokenizer")}
    changed = {name: _without_space(part) for name, part in parts.items()}
    if changed == parts:
        return tokenizer
    backend = Tokenizer.from_str(json.dumps(state | changed))
    return apply_study_settings(PreTrainedTokenizerFast(tokenizer_object=backend))


def _without_space(part: Mapping[str, Any] | None) -> dict[str, Any] | None:
    match part:
        case None | {"type": "Prepend"}:
            return None
        case {"type": "Sequence"}:
            (key,) = part.keys() - {"type"}
            steps = [_without_space(step) for step in part[key]]
            return {**part, key: [step for step in steps if step]}
        case {"type": "Metaspace"}:
            return {**part, "prepend_scheme": "never"}
        case {"type": "ByteLevel"}:
            return {**part, "add_prefix_space": False}
    return dict(part)


def user_turn(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A user's turn in the chat template, up to the beginning of the answer, with the template's BOS token.

    Args:
        tokenizer: A tokenizer with a chat template.
        text: The user's message.

    Raises:
        UserError: the template does not compile, fails, or leaves out the user's message.
    """
    problem = "leaves out what the user says"
    for content in (str, _content_blocks):
        try:
            if _TEST_MESSAGE in _rendered(tokenizer, content(_TEST_MESSAGE)):
                return _rendered(tokenizer, content(text))
        except Exception as error:
            # A template is a program, and may raise anything.
            problem = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise UserError(
        f"the target's chat template {problem}; mend its chat_template, or set 'chat' of the prompts to false"
    )


def _content_blocks(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _rendered(tokenizer: PreTrainedTokenizerBase, content: str | list[dict[str, str]]) -> str:
    turn = [{"role": "user", "content": content}]
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = _FIXED_DATE_MACRO + template
    return tokenizer.apply_chat_template(
        turn, chat_template=template, tokenize=False, add_generation_prompt=True
    )


def require_embedding_rows(
    tokenizer: PreTrainedTokenizerFast, rows: int, name: str | Path
) -> PreTrainedTokenizerFast:
    """Check that every token that a text can have has a row of the embedding; more rows are fine.

    Args:
        tokenizer: The tokenizer.
        rows: Rows of the model's embedding.
        name: The checkpoint, for the error.

    Returns:
        The tokenizer, without padding and unknown tokens that have no row.

    Raises:
        UserError: tokens were added without resizing the embedding.
    """
    unused = {tokenizer.pad_token, tokenizer.unk_token}
    beyond = sorted(token for token, number in tokenizer.get_vocab().items() if number >= rows)
    if set(beyond) - unused:
        raise UserError(
            f"{name}: {len(beyond)} tokens of the tokenizer ({', '.join(beyond[:3])}) have no row in the"
            f" embedding of {rows}; resize it (model.resize_token_embeddings(len(tokenizer))) and save the"
            " model again, or remove them"
        )
    return without_rowless_tokens(tokenizer, rows)


def without_rowless_tokens(tokenizer: PreTrainedTokenizerFast, rows: int) -> PreTrainedTokenizerFast:
    """The tokenizer without added tokens that have no row of an embedding; their names become plain text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in state["added_tokens"] if token["id"] < rows]
    if len(kept) == len(state["added_tokens"]):
        return tokenizer
    contents = {token["content"] for token in kept}
    roles = {
        role: str(token) for role, token in tokenizer.special_tokens_map.items() if str(token) in contents
    }
    backend = Tokenizer.from_str(json.dumps(state | {"added_tokens": kept}))
    return apply_study_settings(
        PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=tokenizer.chat_template, **roles)
    )
