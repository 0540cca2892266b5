"""Pruning configurations."""

from dataclasses import dataclass

from torch import Tensor

from ablations.sdtp.pruned.selection import select, threshold_count, top_p_count
from ablations.specs.sdtp.counts import Preserve, Protected, stage_counts
from ablations.specs.sdtp.pruning import Mask, Positions, Propagation, Selection

CALIBRATION_FILE = "calibration.json"

PROTECT_NOTHING = Preserve(head=0, tail=0)


@dataclass(frozen=True)
class Pruning:
    """Where and how much a prefill prunes, and what happens to dropped tokens.

    Attributes:
        layers: Ascending layers at whose input a stage prunes.
        keep_ratios: Share of the living tokens that each stage keeps.
        preserve: Tokens that no stage drops.
        positions: `original` keeps each survivor's RoPE index; `packed` renumbers the survivors from 0 at
            every stage, and each layer continues after its own last index; `stale` leaves the full-length
            rotary tensor in place.
        mask: `hard` removes dropped tokens; `soft` removes nothing and weights attention.
        propagation: `cascade` drops for good; `local` lets every stage choose among all prompt tokens;
            `stale_keys` freezes dropped tokens' states and leaves them visible.
        selection: Rule by which a stage keeps the highest scores.
        values: Per stage, the probability mass (`top_p`) or the lowest score kept (`threshold`).
        floor: Every stage keeps at least the number of tokens that `floor` would protect.
        temperature: Temperature of the soft mask's keep probabilities.
    """

    layers: tuple[int, ...]
    keep_ratios: tuple[float, ...]
    preserve: Preserve
    positions: Positions = "original"
    mask: Mask = "hard"
    propagation: Propagation = "cascade"
    selection: Selection = "top_k"
    values: tuple[float, ...] = ()
    floor: Preserve = PROTECT_NOTHING
    temperature: float = 1.0

    def counts(self, tokens: int) -> tuple[int, ...]:
        """Tokens of a prompt that top-k keeps at each stage."""
        floor = max(self.preserve.of(tokens).tokens, self.floor.of(tokens).tokens)
        return stage_counts(tokens, self.keep_ratios, floor)

    def choose(self, stage: int, scores: Tensor, count: int, protected: Protected) -> Tensor:
        """Rows that a stage keeps.

        Args:
            stage: Number of the stage, from 0.
            scores: ``[rows]`` float, of all candidates, in the order of the prompt.
            count: Number of rows that top-k keeps.
            protected: Rows at both ends that are kept whatever their score.

        Returns:
            Ascending int64 rows.
        """
        if self.selection == "top_p":
            count = top_p_count(scores, self.values[stage], protected)
        elif self.selection == "threshold":
            count = threshold_count(scores, self.values[stage], protected)
        return select(scores, count, protected)


DENSE = Pruning(layers=(), keep_ratios=(), preserve=PROTECT_NOTHING)
