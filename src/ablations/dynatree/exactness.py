"""Whether an arm emitted the target's own greedy tokens, and how far rounding can move a choice."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ablations.dynatree.verify import tree_mask
from ablations.lm.finite import require_finite
from ablations.lm.graphs import cache_for, last_states
from ablations.lm.layered import LayeredLM
from ablations.study.contracts.dynatree import Departure
from ablations.study.errors import UserError

# Rounding moved gaps of float32 logits by up to 5e-5.
FLOAT32_MARGIN = 1e-3

# The noise is known at the positions of a text or two; elsewhere it may be greater.
SAFETY = 2.0

# Rounding steps of the greatest logit that no noise exceeds: what moves logits further is no rounding, and
# must not make room for itself.
MOST_STEPS = 16

# Rows of the forwards that decoding takes: a token, and a tree.
CHUNKS = (1, 8)

# Rows whose logits are held at once.
HEAD_ROWS = 64


class Exactness:
    """Checks what arms emit against the target's greedy tokens, and measures what counts as a tie.

    Where they differ, the target reads the emitted tokens in one forward (teacher forcing), and each must be
    its most probable token but for a tie. In float32 the margin of a tie is fixed. In lower precision
    products of one row and of many round differently, by how much depends on the model: the margin is
    measured on the prompt of the first departure, and again on that of one beyond it.

    Args:
        target: The model that decides.

    Attributes:
        margin: Largest difference of logits that counts as a tie; in low precision 0 while nothing departed.
    """

    def __init__(self, target: LayeredLM) -> None:
        self._target = target
        self._fixed = target.dtype == torch.float32
        self.margin = FLOAT32_MARGIN if self._fixed else 0.0

    def departures(
        self, document: str, prompt: list[int], emitted: list[int], greedy: list[int]
    ) -> tuple[Departure, ...]:
        """Where emitted tokens are not the target's greedy ones, all of it ties.

        Args:
            document: Prompt's name, for the message.
            prompt: Token ids.
            emitted: The arm's tokens.
            greedy: The target's own greedy tokens, decoded one by one.

        Returns:
            Every place with its gap, the first at which the two differ among them; empty where they are
            identical.

        Raises:
            UserError: a departure that is no tie, or logits that are NaN or infinite.
        """
        if emitted == greedy:
            return ()
        both = list(zip(emitted, greedy, strict=False))
        first = next((place for place, (one, other) in enumerate(both) if one != other), len(both))
        if first == len(both):
            raise UserError(
                f"prompt {document}: {len(emitted)} new tokens where the target's greedy ones are"
                f" {len(greedy)}; speculative decoding must not change the output"
            )
        gaps = self._gaps(prompt, emitted, first, greedy[first])
        require_finite(
            bool(gaps.isfinite().all()), "the target's logits of emitted tokens", self._target.dtype
        )
        if gaps.max() > self.margin and not self._fixed:
            self.margin = max(self.margin, self._measured_margin(prompt + greedy[:-1]))
        if gaps.max() > self.margin:
            place = int(gaps.argmax())
            raise UserError(
                f"prompt {document}: new token {place} is not the target's greedy token (its logit is"
                f" {gaps[place]:.2g} from the greatest, a tie is up to {self.margin:.2g}; the first departure"
                f" is new token {first}); speculative decoding must not change the output"
            )
        places = {first, *gaps.nonzero()[:, 0].tolist()}
        return tuple(Departure(position=place, gap=float(gaps[place])) for place in sorted(places))

    def _gaps(self, prompt: list[int], emitted: list[int], first: int, other: int) -> Tensor:
        """How far each emitted token lies below the most probable one, ``[emitted]`` float32 on the CPU.

        At the `first` departure the token that was expected is judged with the one that was emitted: it may
        be the reference that departed there.
        """
        states = self._states(prompt + emitted[:-1])[len(prompt) - 1 :]
        chosen = torch.tensor(emitted, device=states.device)[:, None]
        gaps, start = [], 0
        for logits in self._logits(states):
            best = logits.max(dim=1).values
            gaps.append(best - logits.gather(1, chosen[start : start + len(logits)])[:, 0])
            if start <= first < start + len(logits):
                row = first - start
                gaps[-1][row] = torch.maximum(gaps[-1][row], best[row] - logits[row, other])
            start += len(logits)
        return torch.cat(gaps).cpu()

    def _measured_margin(self, text: list[int]) -> float:
        """The margin by what rounding does to the gap of the two most probable tokens along a text.

        Gaps of one forward over all of it are compared with those of forwards of few rows on a cache, and
        of the library's own forward, which reads the same weights in another order.
        """
        best = [logits.topk(2, dim=1) for logits in self._logits(self._states(text))]
        pairs = torch.cat([found.indices for found in best])
        gaps, most = (
            _gap(torch.cat([found.values for found in best])),
            max(found.values.max() for found in best),
        )
        ids = torch.tensor([text], device=pairs.device)
        library = self._target.model(ids, use_cache=False).logits[0].gather(1, pairs).float()
        ways = [library, *(self._in_chunks(text, rows, pairs) for rows in CHUNKS)]
        noise = max(float((_gap(found) - gaps).abs().max()) for found in ways)
        step = torch.finfo(self._target.dtype).eps * abs(float(most))
        return min(SAFETY * noise, MOST_STEPS * step)

    def _in_chunks(self, text: list[int], rows: int, pairs: Tensor) -> Tensor:
        """Logits of ``[text, 2]`` tokens after each place, from forwards of some rows at a time."""
        target, device = self._target, pairs.device
        cache = cache_for(target, len(text), rows)
        causal = torch.ones(rows, rows, dtype=torch.bool, device=device).tril()
        found = []
        for start in range(0, len(text), rows):
            ids = torch.tensor([text[start : start + rows]], device=device)
            count = ids.shape[1]
            positions = torch.arange(start, start + count, device=device)[None]
            mask = tree_mask(causal[:count, :count], start, target.dtype) if count > 1 else None
            logits = target.head(last_states(target, ids, positions, mask, cache))[0].float()
            found.append(logits.gather(1, pairs[start : start + count]))
        return torch.cat(found)

    def _states(self, text: list[int]) -> Tensor:
        ids = torch.tensor([text], device=self._target.device)
        return last_states(self._target, ids, torch.arange(len(text), device=ids.device)[None])[0]

    def _logits(self, states: Tensor) -> Iterator[Tensor]:
        for rows in states.split(HEAD_ROWS):
            yield self._target.head(rows[None])[0].float()


def _gap(logits: Tensor) -> Tensor:
    return logits[:, 0] - logits[:, 1]
