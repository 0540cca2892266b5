"""Questions that a target makes up as the user of its own chat template (Magpie, arXiv 2406.08464)."""

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerFast

from ablations.lm.tokenizer import user_turn, within_text
from ablations.study.errors import UserError

# Questions are drawn from the most probable tokens: the tail of a small model makes no sense.
SAMPLED_FROM = 200
LONGEST_QUESTION = 48
SHORTEST_QUESTION = 4
PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}"


class Question(LogitsProcessor):
    """Samples a user's turn, then makes the model say what the chat template puts before the answer.

    Args:
        closing: ``[closing]`` int64: end of the user's turn and beginning of the assistant's.
        prefix: Tokens before the user's turn.
        batch: Rows.
        generator: Draws.

    Attributes:
        answers: ``[batch]`` int64, place of the first token of the answer in each row.
    """

    def __init__(self, closing: Tensor, prefix: int, batch: int, generator: torch.Generator) -> None:
        self._closing = closing
        self._prefix = prefix
        self._generator = generator
        self._said = torch.zeros(batch, dtype=torch.int64, device=closing.device)
        self.answers = torch.zeros_like(self._said)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Leave a single token possible in the rows whose answer has not begun."""
        written = ids.shape[1] - self._prefix
        ended = (self._said == 0) & (ids[:, -1] == self._closing[0]) & (written > 0)
        self._said += ended | (self._said > 0)
        self.answers[self._said == len(self._closing)] = ids.shape[1]
        questions, headers = self._said == 0, (self._said > 0) & (self._said < len(self._closing))
        drawn = self._draw(scores, written)
        forced = self._closing[self._said.clamp(max=len(self._closing) - 1)]
        only = torch.where(questions, drawn, forced)
        one = torch.full_like(scores, float("-inf")).scatter_(1, only[:, None], 0.0)
        return torch.where((questions | headers)[:, None], one, scores)

    def _draw(self, scores: Tensor, written: int) -> Tensor:
        end = self._closing[0]
        if written >= LONGEST_QUESTION:
            return end.expand(len(scores))
        best = scores.float().topk(min(SAMPLED_FROM, scores.shape[1]))
        # Drawing from NaN would end the process; whoever runs the model looks at its logits.
        chances = best.values.softmax(dim=-1).nan_to_num(1.0)
        if written < SHORTEST_QUESTION:
            chances = chances.masked_fill(best.indices == end, 0.0)
        return best.indices.gather(1, chances.multinomial(1, generator=self._generator))[:, 0]


def chat_frame(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Tokens of the chat template before the user's text, and from there to the assistant's answer.

    Raises:
        UserError: the tokenizer has no chat template, or one that fails.
    """
    if not tokenizer.chat_template:
        raise UserError("teacher.questions: the target has no chat template; set it to 0")
    before, after = user_turn(tokenizer, PLACEHOLDER).split(PLACEHOLDER)
    opening = tokenizer(before, add_special_tokens=False).input_ids
    return opening, within_text(tokenizer)(after, add_special_tokens=False).input_ids
