"""A pruning configuration as a model for EleutherAI's lm-evaluation-harness."""

import math
from collections.abc import Mapping, Sequence
from itertools import count, groupby

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from ablations.core.errors import UserError
from ablations.lm.cache import StaticCache
from ablations.lm.finite import NOT_FINITE, greedy_ids, require_finite
from ablations.lm.layered import LayeredLM
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.pruned.continuation import continuation_states, continue_layers
from ablations.sdtp.pruned.prefill import Prefilled, no_scores
from ablations.sdtp.pruned.pruning import DENSE
from ablations.sdtp.scores.importance import Importance, Prompt

_HEAD_ROWS = 512
"""Rows that the head runs on at once: logits of a whole text would take more memory than all else."""

_GREEDY = {"do_sample": False, "num_beams": 1, "temperature": 0.0}
_WITHOUT_EFFECT = {"top_k", "top_p", "attention_mask"}
"""Settings without effect on greedy decoding of a single prompt."""


def unpruned_arm(lm: LayeredLM) -> PrunedArm:
    """The arm that prunes nothing."""
    return PrunedArm(lm, DENSE, Importance(lambda prompt: no_scores))


def require_greedy(generation_kwargs: Mapping[str, object]) -> None:
    """Check that a task asks for greedy decoding.

    Raises:
        UserError: a setting asks for another kind of decoding.
    """
    for key, value in generation_kwargs.items():
        if key not in _WITHOUT_EFFECT and value not in (None, _GREEDY.get(key)):
            raise UserError(
                f"generation_kwargs.{key}: {value} is not greedy decoding, the only kind here; remove it"
            )


class PrunedLM(HFLM):
    """Prunes what the harness calls the context; the continuation is not pruned.

    Tokens, windows, truncation, chat templates and the post-processing of generations are those of the
    harness's class for `transformers` models; this project runs the model. In a rolling log-likelihood only
    the last window of a long text has a context that can be pruned.

    Args:
        arm: The arm; its model's linear layers may be packed only after this object was made.
        tokenizer: The model's tokenizer.
        min_context: Contexts of fewer tokens are not pruned. Nor are contexts of protected tokens only.
    """

    def __init__(self, arm: PrunedArm, tokenizer: PreTrainedTokenizerFast, min_context: int = 0) -> None:
        super().__init__(pretrained=arm.lm.model, tokenizer=tokenizer, batch_size=1, backend="causal")
        self._arm = arm
        self._unpruned = unpruned_arm(arm.lm)
        self._min_context = min_context
        self._prompt_numbers = count()

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation after its context, and whether it is the greedy one.

        A context that several continuations share (the choices of a question) is prefilled once.

        Raises:
            UserError: a continuation has more tokens than the model has positions, or a log-likelihood is not
                finite.
        """
        contexts = [self._truncated(context, continuation) for _, context, continuation in requests]
        results: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(contexts)), key=contexts.__getitem__)
        # The harness requests a rolling window by itself, and shows a bar for all of them.
        silent = disable_tqdm or len(contexts) == 1
        with tqdm(total=len(contexts), desc="loglikelihood", mininterval=2, disable=silent) as bar:
            for context, group in groupby(order, key=contexts.__getitem__):
                indices = list(group)
                room = max(len(requests[index][2]) for index in indices)
                prefilled, cache = self._prefill(context, room)
                lengths = list(cache.lengths)
                for index in indices:
                    results[index] = self._score(prefilled, cache, requests[index][2])
                    cache.lengths = list(lengths)
                    bar.update()
        return [results[index] for index in range(len(contexts))]

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: object
    ) -> Tensor:
        """Decode greedily after a pruned prefill, up to a stop sequence or the length.

        Args:
            context: ``[1, tokens]`` int64.
            max_length: Most tokens of context and generation together.
            stop: Stop sequences, the end of text included.
            generation_kwargs: The task's other settings of generation.

        Returns:
            ``[1, tokens]`` int64, context and generation.

        Raises:
            UserError: the task does not ask for greedy decoding, or logits are NaN or infinite.
        """
        require_greedy(generation_kwargs)
        lm, tokens = self._arm.lm, context.shape[1]
        stopped = stop_sequences_criteria(self.tokenizer, stop, tokens, 1)
        # Not in inference mode, since gradient saliency needs a backward pass.
        prefilled, cache = self._prefill(context[0].tolist(), max_length - tokens)
        ids, logits = context, prefilled.logits
        with torch.inference_mode():
            while ids.shape[1] < max_length:
                token = greedy_ids(logits)[None, None]
                token_id = token.item()
                require_finite(token_id != NOT_FINITE, "the logits of a generated token", lm.dtype)
                ids = torch.cat([ids, token], dim=1)
                if token_id in lm.eos_ids or stopped(ids, None).all():
                    break
                hidden = continue_layers(
                    lm,
                    lm.embed(token),
                    range(lm.num_layers),
                    prefilled.position_offsets,
                    cache,
                    prefilled.weights,
                )
                logits = lm.head(hidden)[0, 0]
        return ids

    def _truncated(self, context: list[int], continuation: list[int]) -> list[int]:
        """The context without its first tokens, if the model has too few positions for all of it."""
        # The last token of a continuation is predicted and needs no position.
        room = self.max_length + 1 - len(continuation)
        if room < 1:
            raise UserError(
                f"a continuation of {len(continuation)} tokens exceeds the model's {self.max_length}"
                " positions; choose another task or model"
            )
        return context[-room:]

    def _prefill(self, context: Sequence[int], room: int) -> tuple[Prefilled, StaticCache]:
        protected = self._arm.pruning.preserve.of(len(context)).tokens
        arm = self._arm if len(context) >= max(self._min_context, protected + 1) else self._unpruned
        cache = arm.lm.new_cache(len(context) + room)
        prompt = Prompt(torch.tensor(context, device=arm.lm.device), next(self._prompt_numbers))
        return arm.prefill(prompt, cache), cache

    @torch.inference_mode()
    def _score(self, prefilled: Prefilled, cache: StaticCache, continuation: list[int]) -> tuple[float, bool]:
        lm = self._arm.lm
        ids = torch.tensor(continuation, device=lm.device)
        states = continuation_states(lm, prefilled, cache, ids)
        total, greedy = 0.0, True
        for rows, expected in zip(states.split(_HEAD_ROWS), ids.split(_HEAD_ROWS), strict=True):
            logits = lm.head(rows[None])[0].float()
            total += logits.log_softmax(-1).gather(1, expected[:, None]).sum().item()
            greedy = greedy and torch.equal(logits.argmax(-1), expected)
        require_finite(math.isfinite(total), "a log-likelihood", lm.dtype)
        return total, greedy
