"""Rule S: which word about an effect the data allow, so that all words together keep one error level.

A word about an effect claims that the effect lies in a region. The *cuts* of a prediction are the finite ends
of the regions of its words. A prediction is settled where all its cuts are rejected together, by Holm's
step-down over the largest p-value over its cuts; its effect then lies between two neighbouring cuts. What is
not settled is read at the last level of the step-down, and does not leave the family by its word.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ablations.evidence.expectations import Level, Thresholds
from ablations.evidence.statistics import Array, Endpoint, Mean

Outcome = Literal[
    "as_expected",
    "smaller",
    "opposite",
    "no_difference",
    "smaller_if_any",
    "different",
    "not_resolved",
]
"""What the data say of a prediction. `smaller`: in the expected direction, short of strong; `no_difference`:
within the margin; `smaller_if_any`: short of strong, whatever its sign; `different`: beyond the margin of an
expected sameness."""


class Word(NamedTuple):
    """A word about an effect, and the open region in which it claims that the effect lies."""

    outcome: Outcome
    low: float
    high: float


NOT_RESOLVED = Word("not_resolved", -math.inf, math.inf)


class Region(NamedTuple):
    """What a prediction expects of an effect, on the effect's own scale.

    Attributes:
        sign: 1 where the effect is expected to be positive, -1 where negative, 0 where near zero.
        margin: Largest size that counts as no difference.
        strong: Smallest size that counts as strong; None where any size is expected.
    """

    sign: int
    margin: float
    strong: float | None = None

    @property
    def words(self) -> tuple[Word, ...]:
        """Words about the effect; the first one in whose region an interval lies is said."""
        margin, strong, infinity = self.margin, self.strong, math.inf
        if self.sign == 0:
            return (
                Word("as_expected", -margin, margin),
                Word("different", margin, infinity),
                Word("different", -infinity, -margin),
            )
        expected = [Word("as_expected", strong or 0.0, infinity)]
        short = []
        if strong is not None:
            expected.append(Word("smaller", 0.0, strong))
            short.append(Word("smaller_if_any", -infinity, strong))
        words = (
            *expected,
            Word("opposite", -infinity, 0.0),
            Word("no_difference", -margin, margin),
            *short,
        )
        return words if self.sign > 0 else tuple(Word(word, -high, -low) for word, low, high in words)

    @property
    def cuts(self) -> tuple[float, ...]:
        """Finite ends of the regions of all words, ascending."""
        ends = {end + 0.0 for word in self.words for end in word[1:] if math.isfinite(end)}
        return tuple(sorted(ends))

    def word(self, low: float, high: float) -> Word:
        """The word that an interval allows."""
        return next(
            (word for word in self.words if word.low < low and high < word.high),
            NOT_RESOLVED,
        )


def region(level: Level, endpoint: Endpoint, thresholds: Thresholds) -> Region:
    """What a level means on an endpoint.

    `up` is a gain: the KL divergence or the NLL falls, or the log speed-up rises.
    """
    if endpoint == "speed":
        gain, margin, strong = 1, math.log(thresholds.speed_same), math.log(thresholds.speed_strong)
    elif endpoint == "text":
        gain, margin, strong = -1, thresholds.text_same, thresholds.text_strong
    else:
        gain, margin, strong = -1, thresholds.retrieval_same, thresholds.retrieval_strong
    if level == "same":
        return Region(0, margin)
    sign = gain if level.startswith("up") else -gain
    return Region(sign, margin, strong if level.endswith("strong") else None)


class Reading(NamedTuple):
    """What a family of predictions came to, an entry for each study and prediction, shape (..., k).

    Attributes:
        word: Index into the words of a prediction; -1 where none holds.
        p: Largest p-value over the cuts (`p_settle`), float.
        word_p: Largest p-value over the ends of the word, float; `p` where there is no word.
        comparisons: Predictions over which Holm's step-down ran at the reading (`r`), int.
        low: Lower end of the interval at the level of the reading, float; infinite where there is none.
        high: Upper end.
        look: Look of the reading, counted from 1, int; 0 where the data never defined one.
    """

    word: np.ndarray
    p: Array
    word_p: Array
    comparisons: np.ndarray
    low: Array
    high: Array
    look: np.ndarray


def read_family(looks: Sequence[tuple[Mean, float]], regions: Sequence[Region]) -> Reading:
    """Decide a family by rule S at each look; what is settled at one has left the family at the next.

    A word once printed stays. What has no word is read again at each look at which it is defined.

    Args:
        looks: Effects at each look, shape (..., k), with its share of the error level. An effect that is not
            looked at, or is missing, is undefined: its p-value is 1, and it keeps its place in the family.
        regions: The k predictions.
    """
    shape = looks[0][0].value.shape
    cuts = _padded([prediction.cuts for prediction in regions])
    words = [prediction.words for prediction in regions]
    lows = _padded([[word.low for word in own] for own in words])
    highs = _padded([[word.high for word in own] for own in words])
    unsettled = np.ones(shape, bool)
    found = Reading(
        word=np.full(shape, -1),
        p=np.ones(shape),
        word_p=np.ones(shape),
        comparisons=np.full(shape, len(regions)),
        low=np.full(shape, -np.inf),
        high=np.full(shape, np.inf),
        look=np.zeros(shape, int),
    )
    for number, (effects, alpha) in enumerate(looks, start=1):
        p = _largest_p(effects, cuts)
        unread = unsettled & (found.word < 0) & ~np.isnan(effects.value)
        comparisons = _step_down(p, unsettled, alpha)
        low, high = effects.interval(alpha / comparisons)
        inside = (lows < low[..., None]) & (high[..., None] < highs)
        word = np.where(inside.any(axis=-1), inside.argmax(axis=-1), -1)
        ends = [
            np.take_along_axis(np.broadcast_to(side, inside.shape), np.maximum(word, 0)[..., None], axis=-1)
            for side in (lows, highs)
        ]
        word_p = np.where(word < 0, p, _largest_p(effects, np.concatenate(ends, axis=-1)))
        read = Reading(word, p, word_p, comparisons, low, high, np.full(shape, number))
        found = Reading(*(np.where(unread, new, old) for new, old in zip(read, found, strict=True)))
    return found


def _step_down(p: Array, unsettled: np.ndarray, alpha: float) -> np.ndarray:
    """Settle predictions until none is left that can be, and give the number at which each is read.

    Args:
        p: Largest p-value over the cuts of each prediction, shape (..., k).
        unsettled: Predictions still in the family, shape (..., k); those that are settled are taken out.
        alpha: Error level of the family.

    Returns:
        Predictions in the family when each was settled, or at the end of the step-down, shape (..., k).
    """
    read_at = np.ones(p.shape, int)
    while True:
        left = np.broadcast_to(np.maximum(unsettled.sum(axis=-1, keepdims=True), 1), p.shape)
        read_at[unsettled] = left[unsettled]
        settled = unsettled & (p <= alpha / left)
        if not settled.any():
            return read_at
        unsettled &= ~settled


def _largest_p(effects: Mean, cuts: Array) -> Array:
    """Largest p-value of an effect over cuts, shape (..., k); those that are not finite count as none.

    Args:
        effects: Effects, shape (..., k).
        cuts: Cuts, shape (..., k, cuts of one prediction).
    """
    largest = np.zeros(effects.value.shape)
    for place in range(cuts.shape[-1]):
        cut = cuts[..., place]
        finite = np.isfinite(cut)
        largest = np.maximum(largest, np.where(finite, effects.p(np.where(finite, cut, 0.0)), 0.0))
    return largest


def _padded(rows: Sequence[Sequence[float]]) -> Array:
    """Rows of unlike length as an array, with NaN at the end of the shorter ones, shape (rows, longest)."""
    longest = max(map(len, rows))
    return np.array([[*row, *[np.nan] * (longest - len(row))] for row in rows])
