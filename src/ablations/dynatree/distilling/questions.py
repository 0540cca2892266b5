"""Questions that a target generates as the user of its own chat template (Magpie, arXiv 2406.08464)."""

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerFast

from ablations.core.errors import UserError
from ablations.lm.tokenizer import user_turn, without_leading_space

# Questions are sampled from the most probable tokens, since a small model's improbable ones make no sense.
SAMPLED_TOP_K = 200
LONGEST_QUESTION = 48
SHORTEST_QUESTION = 4
PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}"


class QuestionSampler(LogitsProcessor):
    """Samples a user's turn, then forces the tokens of the chat template between question and answer.

    Args:
        closing: ``[closing]`` int64, end of the user's turn and beginning of the assistant's.
        prefix: Number of tokens before the user's turn.
        batch: Number of rows.
        generator: Source of the samples.

    Attributes:
        answer_starts: ``[batch]`` int64, position of the first token of the answer in each row.
    """

    def __init__(self, closing: Tensor, prefix: int, batch: int, generator: torch.Generator) -> None:
        self._closing = closing
        self._prefix = prefix
        self._generator = generator
        # Tokens of `closing` in each row so far.
        self._closed = torch.zeros(batch, dtype=torch.int64, device=closing.device)
        self.answer_starts = torch.zeros_like(self._closed)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only one token possible in the rows whose answer has not begun."""
        length = ids.shape[1] - self._prefix
        ended = (self._closed == 0) & (ids[:, -1] == self._closing[0]) & (length > 0)
        self._closed += ended | (self._closed > 0)
        self.answer_starts[self._closed == len(self._closing)] = ids.shape[1]
        in_question = self._closed == 0
        in_closing = (self._closed > 0) & (self._closed < len(self._closing))
        sampled = self._sample(scores, length)
        forced = self._closing[self._closed.clamp(max=len(self._closing) - 1)]
        tokens = torch.where(in_question, sampled, forced)
        only_token = torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)
        return torch.where((in_question | in_closing)[:, None], only_token, scores)

    def _sample(self, scores: Tensor, length: int) -> Tensor:
        end = self._closing[0]
        if length >= LONGEST_QUESTION:
            return end.expand(len(scores))
        best = scores.float().topk(min(SAMPLED_TOP_K, scores.shape[1]))
        # Sampling from NaN would end the process. The teacher checks the logits.
        probabilities = best.values.softmax(dim=-1).nan_to_num(1.0)
        if length < SHORTEST_QUESTION:
            probabilities = probabilities.masked_fill(best.indices == end, 0.0)
        return best.indices.gather(1, probabilities.multinomial(1, generator=self._generator))[:, 0]


def chat_frame(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Tokens of the chat template before the user's text, and between it and the assistant's answer.

    Raises:
        UserError: the tokenizer has no chat template, or the template fails.
    """
    if not tokenizer.chat_template:
        raise UserError("teacher.questions: the target has no chat template; set it to 0")
    before, after = user_turn(tokenizer, PLACEHOLDER).split(PLACEHOLDER)
    opening = tokenizer(before, add_special_tokens=False).input_ids
    return opening, without_leading_space(tokenizer)(after, add_special_tokens=False).input_ids
