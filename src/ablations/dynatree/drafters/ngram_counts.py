"""N-gram counts of a training text: the followers of a context, by the hash of its tokens."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from safetensors.numpy import load_file

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError

COUNTS_FILE = "counts.safetensors"
# The hash of a context is a polynomial in its tokens modulo 2^63, which fits into a signed 64-bit integer.
HASH_BASE = 0x5851F42D4C957F2D
HASH_MASK = (1 << 63) - 1


def suffix_hashes(context: Iterable[int]) -> list[int]:
    """Hashes of the last token, the last two tokens, and so on, up to the whole context.

    The hash of tokens ``t_1 ... t_k`` is the sum of ``(t_j + 1) * HASH_BASE ** (k - j)`` modulo 2^63.
    """
    hashes = []
    value, power = 0, 1
    for token in reversed(tuple(context)):
        value = (value + (token + 1) * power) & HASH_MASK
        power = (power * HASH_BASE) & HASH_MASK
        hashes.append(value)
    return hashes


class Followers(NamedTuple):
    """Tokens that followed one context in the training text.

    Attributes:
        tokens: The most frequent followers.
        counts: Counts of `tokens`.
        total: Count of all followers.
        types: Number of distinct followers.
        spare: Mass for the shorter context: `types`, plus the counts of followers not in `tokens`.
    """

    tokens: list[int]
    counts: list[int]
    total: int
    types: int
    spare: int


UNSEEN = Followers([], [], 0, 0, 0)


class NgramCounts:
    """N-gram counts of a training text, in sorted arrays.

    Args:
        arrays: `unigrams` ``[vocabulary]`` and, for each context length k from 1 on, `contexts.k`
            ``[contexts]`` int64 (sorted hashes), `totals.k` and `types.k` ``[contexts]``, `offsets.k`
            ``[contexts + 1]``, and `followers.k` and `counts.k` ``[offsets.k[-1]]``, the most frequent
            followers of each context first.
        vocabulary: Output size of the target; tokens beyond `unigrams` have count 0.
    """

    def __init__(self, arrays: dict, vocabulary: int) -> None:
        unigrams = arrays["unigrams"]
        self.order = 1 + sum(name.startswith("contexts.") for name in arrays)
        self.unigrams: list[int] = unigrams.tolist() + [0] * (vocabulary - len(unigrams))
        self.by_frequency: list[int] = sorted(range(vocabulary), key=lambda token: -self.unigrams[token])
        self.total = sum(self.unigrams)
        self.types = sum(count > 0 for count in self.unigrams)
        self._arrays = arrays

    @classmethod
    def load(cls, manifest: Path, vocabulary: int) -> "NgramCounts":
        """Load counts written by `ablations.dynatree.fit_ngram`.

        Raises:
            UserError: a file is missing or corrupt, or the counts have more tokens than the target.
        """
        folder, _ = open_artefact(manifest)
        arrays = load_file(folder / COUNTS_FILE)
        if len(arrays["unigrams"]) > vocabulary:
            raise UserError(
                f"{manifest}: counts of {len(arrays['unigrams'])} tokens do not fit a target of"
                f" {vocabulary} tokens; fit the n-gram model with the target's tokenizer"
            )
        return cls(arrays, vocabulary)

    def followers(self, length: int, context: int) -> Followers:
        """Followers of the context of `length` tokens with hash `context`; `UNSEEN` if it never occurred."""
        arrays = self._arrays
        hashes = arrays[f"contexts.{length}"]
        row = int(hashes.searchsorted(context))
        if row == len(hashes) or hashes[row] != context:
            return UNSEEN
        start, end = arrays[f"offsets.{length}"][row : row + 2].tolist()
        counts = arrays[f"counts.{length}"][start:end].tolist()
        total = int(arrays[f"totals.{length}"][row])
        types = int(arrays[f"types.{length}"][row])
        tokens = arrays[f"followers.{length}"][start:end].tolist()
        return Followers(tokens, counts, total, types, types + total - sum(counts))
