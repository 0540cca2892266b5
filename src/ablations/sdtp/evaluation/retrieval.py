"""Passkey retrieval: a number hidden in a text, asked for at the end of the prompt.

Sentence and question are those of Mohtashami and Jaggi (2023, arXiv 2305.16300, section 4.2). The text around
them is held-out text instead of their repeated filler, from which any scorer could tell the sentence.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ablations.core.errors import UserError
from ablations.lm.cache import StaticCache
from ablations.lm.finite import NOT_FINITE, greedy_ids, require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.tokenizer import prefix_ids, without_leading_space
from ablations.sdtp.pruned.continuation import continuation_states
from ablations.sdtp.pruned.prefill import Prefilled
from ablations.specs.sdtp.evaluate import PasskeyPrompts

SENTENCE = "The pass key is {number}. Remember it. {number} is the pass key.\n"
# Short, so that the last 16 tokens, which are preserved, hold the question: the test is about the sentence.
QUESTION = "\n\nWhat is the pass key? The pass key is"


@dataclass(frozen=True)
class Passkey:
    """One passkey prompt and its answer.

    Attributes:
        depth: Wanted share of the text before the sentence with the number.
        prompt: ``[tokens]`` int64, on the CPU; it ends with the question.
        answer: ``[digits]`` int64, on the CPU; the number as the tokenizer writes it after the question.
    """

    depth: float
    prompt: Tensor
    answer: Tensor


def passkeys(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], spec: PasskeyPrompts, count: int
) -> list[Passkey]:
    """Passkey prompts of exactly `spec.tokens` tokens, BOS included; the first are the same for any count.

    Each prompt has its own text and its own random five-digit number. The sentence is inserted at the line
    end nearest to the depth, so that it has a line to itself.

    Args:
        tokenizer: Tokenizer of the model that will read the prompts.
        texts: Held-out texts; the first that are long enough are used.
        spec: Length and depths of the prompts.
        count: How many prompts.

    Raises:
        UserError: too few texts are long enough, or the length leaves no text around the sentence.
    """
    generator = random.Random(0)
    start, inner_tokenizer = prefix_ids(tokenizer), without_leading_space(tokenizer)
    depths = cycle(spec.depths)
    result: list[Passkey] = []
    for text in texts:
        if len(result) == count:
            break
        number = str(generator.randrange(10_000, 100_000))
        sentence = _ids(inner_tokenizer, SENTENCE.format(number=number))
        question, answer = _question(inner_tokenizer, number)
        room = spec.tokens - len(start) - len(sentence) - len(question)
        if room < 2:
            raise UserError(
                f"retrieval.tokens: {spec.tokens} tokens leave no text beside sentence and question"
                f" ({len(start) + len(sentence) + len(question)} tokens); raise it"
            )
        ids = _ids(tokenizer, text, room)
        if len(ids) < room:
            continue
        depth = next(depths)
        place = _line_end(tokenizer, ids, depth)
        prompt = start + ids[:place] + sentence + ids[place:] + question
        result.append(Passkey(depth, torch.tensor(prompt), torch.tensor(answer)))
    if len(result) < count:
        raise UserError(
            f"retrieval.keys: {count} held-out texts that fill {spec.tokens} tokens asked for, {len(result)}"
            " found; lower retrieval.keys or retrieval.tokens, or use a larger text"
        )
    return result


@torch.inference_mode()
def probe(lm: LayeredLM, prefilled: Prefilled, cache: StaticCache, answer: Tensor) -> tuple[bool, float]:
    """Ask a prefilled model for the number.

    Args:
        lm: Model.
        prefilled: Result of the prefill of `Passkey.prompt`.
        cache: Cache of that prefill, with room for the answer; it grows.
        answer: ``[digits]`` int64, on the model's device.

    Returns:
        Whether greedy decoding gives the whole number, and the mean NLL of its tokens in nats. Greedy
        decoding gives it if and only if each token is the most probable one after the right tokens before it.

    Raises:
        UserError: logits are NaN or infinite.
    """
    logits = lm.head(continuation_states(lm, prefilled, cache, answer)[None])[0].float()
    greedy = greedy_ids(logits)
    hit, finite = torch.stack([(greedy == answer).all(), (greedy != NOT_FINITE).all()]).tolist()
    require_finite(finite, "the logits after a passkey prompt", lm.dtype)
    return hit, F.cross_entropy(logits, answer).item()


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, limit: int | None = None) -> list[int]:
    return tokenizer(
        text, add_special_tokens=False, truncation=limit is not None, max_length=limit, verbose=False
    ).input_ids


def _question(tokenizer: PreTrainedTokenizerBase, number: str) -> tuple[list[int], list[int]]:
    """Ids of the question and of the number, from the tokenisation of their joint text."""
    encoded = tokenizer(f"{QUESTION} {number}", add_special_tokens=False, return_offsets_mapping=True)
    parts: tuple[list[int], list[int]] = ([], [])
    for token, (_, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        parts[end > len(QUESTION)].append(token)
    return parts


def _line_end(tokenizer: PreTrainedTokenizerBase, ids: list[int], depth: float) -> int:
    """Number of tokens up to the line end nearest to `depth`; up to `depth` itself if no line ends."""
    target = round(depth * len(ids))
    ends = [place for place, token in enumerate(ids, 1) if tokenizer.decode([token]).endswith("\n")]
    return min(ends, key=lambda place: abs(place - target), default=target)
