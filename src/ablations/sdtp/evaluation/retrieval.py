"""Passkey retrieval: a number hidden in a text, asked for at the end of the prompt.

The sentence and the question are those of Mohtashami and Jaggi (2023, arXiv 2305.16300, section 4.2); the
text around them is held-out text in place of their repeated filler, which any scorer could tell apart.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ablations.lm.cache import StaticCache
from ablations.lm.finite import NOT_FINITE, greedy_ids, require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.tokenizer import start_of_text, within_text
from ablations.sdtp.pruned.continuation import continuation_states
from ablations.sdtp.pruned.prefill import Prefilled
from ablations.study.contracts.sdtp import Retrieval
from ablations.study.errors import UserError

SENTENCE = "The pass key is {number}. Remember it. {number} is the pass key.\n"
# Short, so that preserving the last 16 tokens preserves the question: what is tested is the sentence.
QUESTION = "\n\nWhat is the pass key? The pass key is"


@dataclass(frozen=True)
class Passkey:
    """One prompt and what should follow it.

    Attributes:
        depth: Share of the text that comes before the number's sentence, as asked for.
        prompt: ``[tokens]`` int64, on the CPU; it ends with the question.
        answer: ``[digits]`` int64, on the CPU; the number as the tokenizer writes it after the question.
    """

    depth: float
    prompt: Tensor
    answer: Tensor


def passkeys(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], spec: Retrieval) -> list[Passkey]:
    """Passkey prompts of exactly `spec.tokens` tokens, BOS counted, the same ones on every call.

    Each prompt has a text and a random five-digit number of its own. The sentence lies where the line
    ends that is nearest to the depth, so that it stands on a line of its own.

    Args:
        tokenizer: Tokenizer of the model that will read the prompts.
        texts: Held-out texts; the first that are long enough are used.
        spec: How long, how deep, how many.

    Raises:
        UserError: too few texts are long enough, or the length leaves no text around the sentence.
    """
    numbers = random.Random(0)
    start, inner = start_of_text(tokenizer), within_text(tokenizer)
    wanted = len(spec.depths) * spec.keys
    depths = cycle(spec.depths)
    found: list[Passkey] = []
    for text in texts:
        if len(found) == wanted:
            break
        number = str(numbers.randrange(10_000, 100_000))
        sentence = _ids(inner, SENTENCE.format(number=number))
        question, answer = _question(inner, number)
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
        found.append(Passkey(depth, torch.tensor(prompt), torch.tensor(answer)))
    if len(found) < wanted:
        raise UserError(
            f"retrieval.keys: {wanted} held-out texts that fill {spec.tokens} tokens asked for, {len(found)}"
            " found; lower retrieval.keys or retrieval.tokens, or use a larger text"
        )
    return found


@torch.inference_mode()
def probe(lm: LayeredLM, prefilled: Prefilled, cache: StaticCache, answer: Tensor) -> tuple[bool, float]:
    """Ask a prefilled model for the number.

    Args:
        lm: Model.
        prefilled: What the prefill of `Passkey.prompt` left.
        cache: Its cache, with room for the answer; it grows.
        answer: ``[digits]`` int64, on the model's device.

    Returns:
        Whether greedy decoding says the whole number (each digit is the most probable one given the right
        digits before it, which is the same), and the mean NLL of its tokens in nats.

    Raises:
        UserError: logits are NaN or infinite.
    """
    logits = lm.head(continuation_states(lm, prefilled, cache, answer)[None])[0].float()
    said = greedy_ids(logits)
    hit, finite = torch.stack([(said == answer).all(), (said != NOT_FINITE).all()]).tolist()
    require_finite(finite, "the logits after a passkey prompt", lm.dtype)
    return hit, F.cross_entropy(logits, answer).item()


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, most: int | None = None) -> list[int]:
    return tokenizer(
        text, add_special_tokens=False, truncation=most is not None, max_length=most, verbose=False
    ).input_ids


def _question(tokenizer: PreTrainedTokenizerBase, number: str) -> tuple[list[int], list[int]]:
    """Ids of the question and of the number after it, split where the tokens of their joint text part."""
    encoded = tokenizer(f"{QUESTION} {number}", add_special_tokens=False, return_offsets_mapping=True)
    parts: tuple[list[int], list[int]] = ([], [])
    for token, (_, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        parts[end > len(QUESTION)].append(token)
    return parts


def _line_end(tokenizer: PreTrainedTokenizerBase, ids: list[int], depth: float) -> int:
    """Number of tokens before the line end nearest to `depth`; before the depth itself if no line ends."""
    aim = round(depth * len(ids))
    ends = [place for place, token in enumerate(ids, 1) if tokenizer.decode([token]).endswith("\n")]
    return min(ends, key=lambda place: abs(place - aim), default=aim)
