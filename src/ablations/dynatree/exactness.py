"""Check that an arm emitted the target's greedy tokens, up to ties that rounding may decide."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ablations.core.errors import UserError
from ablations.dynatree.verify import tree_mask
from ablations.lm.finite import require_finite
from ablations.lm.graphs import cache_for, last_states
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.exactness import Departure

# Rounding changed gaps of float32 logits by up to 5e-5.
FLOAT32_MARGIN = 1e-3

# The noise is measured at the positions of one or two texts; elsewhere it may be greater.
SAFETY_FACTOR = 2.0

# Most rounding steps of the greatest logit that count as noise. A larger difference is not rounding, and must
# not widen the margin.
MAX_ROUNDING_STEPS = 16

# Rows of forwards in decoding: one token, and a tree.
CHUNK_ROWS = (1, 8)

# Rows whose logits are computed at once.
HEAD_ROWS = 64


class Exactness:
    """Compares emitted tokens with the target's greedy tokens, and measures the margin of a tie.

    If the tokens differ, the target reads the emitted tokens in one forward (teacher forcing). Each of them
    must be the most probable token, or tie with it. In float32 the margin of a tie is fixed. In lower
    precision products of one row and of many rows round differently, and how much depends on the model. So
    the margin is measured on the prompt of the first departure, and again on each prompt with a departure
    beyond it.

    Args:
        target: The model whose greedy tokens are expected.
        margin_of: `measured_margin` of the target for a text, from a cache for example; None measures it.

    Attributes:
        margin: Largest difference of logits that counts as a tie; in low precision 0 before any departure.
    """

    def __init__(
        self, target: LayeredLM, margin_of: Callable[[tuple[int, ...]], float] | None = None
    ) -> None:
        self._target = target
        self._margin_of = margin_of or partial(measured_margin, target)
        self._fixed = target.dtype == torch.float32
        self.margin = FLOAT32_MARGIN if self._fixed else 0.0

    def departures(
        self, document: str, prompt: list[int], emitted: list[int], greedy: list[int]
    ) -> tuple[Departure, ...]:
        """Positions at which emitted tokens tie with the target's greedy token.

        Args:
            document: Name of the prompt, for the message.
            prompt: Token ids.
            emitted: The arm's tokens.
            greedy: The target's greedy tokens, decoded one by one.

        Returns:
            Each position with its gap, including the first position at which the two texts differ; empty if
            they are identical.

        Raises:
            UserError: a departure is not a tie, or logits are NaN or infinite.
        """
        if emitted == greedy:
            return ()
        common = min(len(emitted), len(greedy))
        first = next((index for index in range(common) if emitted[index] != greedy[index]), common)
        if first == common:
            raise UserError(
                f"prompt {document}: {len(emitted)} new tokens where the target's greedy ones are"
                f" {len(greedy)}; speculative decoding must not change the output"
            )
        gaps = self._gaps(prompt, emitted, first, greedy[first])
        require_finite(
            bool(gaps.isfinite().all()), "the target's logits of emitted tokens", self._target.dtype
        )
        if gaps.max() > self.margin and not self._fixed:
            self.margin = max(self.margin, self._margin_of((*prompt, *greedy[:-1])))
        if gaps.max() > self.margin:
            place = int(gaps.argmax())
            raise UserError(
                f"prompt {document}: new token {place} is not the target's greedy token (its logit is"
                f" {gaps[place]:.2g} from the greatest, a tie is up to {self.margin:.2g}; the first departure"
                f" is new token {first}); speculative decoding must not change the output"
            )
        positions = {first, *gaps.nonzero()[:, 0].tolist()}
        return tuple(Departure(position=index, gap=float(gaps[index])) for index in sorted(positions))

    def _gaps(self, prompt: list[int], emitted: list[int], first: int, expected: int) -> Tensor:
        """Difference of the greatest logit and each emitted token's, ``[emitted]`` float32 on the CPU.

        At position `first` the gap is the greater one of the emitted and the `expected` token's, since it may
        be the reference that departed there.
        """
        states = _states(self._target, [*prompt, *emitted[:-1]])[len(prompt) - 1 :]
        tokens = torch.tensor(emitted, device=states.device)[:, None]
        gaps, start = [], 0
        for logits in _logits(self._target, states):
            greatest = logits.max(dim=1).values
            gaps.append(greatest - logits.gather(1, tokens[start : start + len(logits)])[:, 0])
            if start <= first < start + len(logits):
                row = first - start
                gaps[-1][row] = torch.maximum(gaps[-1][row], greatest[row] - logits[row, expected])
            start += len(logits)
        return torch.cat(gaps).cpu()


def measured_margin(target: LayeredLM, text: Sequence[int]) -> float:
    """Margin of a tie, from the effect of rounding on the gap of the two most probable tokens of a text.

    The gaps of one forward over the whole text are compared with those of forwards of few rows on a
    cache, and with those of the library's forward, which multiplies the same weights in another order.

    Args:
        target: The model.
        text: Token ids.
    """
    top_two = [logits.topk(2, dim=1) for logits in _logits(target, _states(target, text))]
    pairs = torch.cat([top.indices for top in top_two])
    gaps = _gap(torch.cat([top.values for top in top_two]))
    greatest = max(top.values.max() for top in top_two)
    ids = torch.tensor([text], device=pairs.device)
    library = target.model(ids, use_cache=False).logits[0].gather(1, pairs).float()
    variants = [library, *(_in_chunks(target, text, rows, pairs) for rows in CHUNK_ROWS)]
    noise = max(float((_gap(logits) - gaps).abs().max()) for logits in variants)
    step = torch.finfo(target.dtype).eps * abs(float(greatest))
    return min(SAFETY_FACTOR * noise, MAX_ROUNDING_STEPS * step)


def _in_chunks(target: LayeredLM, text: Sequence[int], rows: int, pairs: Tensor) -> Tensor:
    """Logits ``[text, 2]`` of the tokens `pairs` after each position, from forwards of `rows` rows."""
    device = pairs.device
    cache = cache_for(target, len(text), rows)
    causal = torch.ones(rows, rows, dtype=torch.bool, device=device).tril()
    chunks = []
    for start in range(0, len(text), rows):
        ids = torch.tensor([text[start : start + rows]], device=device)
        count = ids.shape[1]
        positions = torch.arange(start, start + count, device=device)[None]
        mask = tree_mask(causal[:count, :count], start, target.dtype) if count > 1 else None
        logits = target.head(last_states(target, ids, positions, mask, cache))[0].float()
        chunks.append(logits.gather(1, pairs[start : start + count]))
    return torch.cat(chunks)


def _states(target: LayeredLM, text: Sequence[int]) -> Tensor:
    ids = torch.tensor([text], device=target.device)
    return last_states(target, ids, torch.arange(len(text), device=ids.device)[None])[0]


def _logits(target: LayeredLM, states: Tensor) -> Iterator[Tensor]:
    for rows in states.split(HEAD_ROWS):
        yield target.head(rows[None])[0].float()


def _gap(logits: Tensor) -> Tensor:
    """Difference of the logits ``[rows, 2]`` of each row."""
    return logits[:, 0] - logits[:, 1]
