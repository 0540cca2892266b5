"""What a pruning configuration is."""

from dataclasses import dataclass

from torch import Tensor

from ablations.sdtp.pruned.selection import select, stage_counts, threshold_count, top_p_count
from ablations.study.contracts.sdtp import Mask, Positions, Preserve, Propagation, Selection

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class Pruning:
    """Where a prefill prunes, how much, and what becomes of what it drops.

    Attributes:
        layers: Ascending layers at whose input a stage prunes.
        keep_ratios: Share of the living tokens that each stage keeps.
        preserve: Tokens that no stage drops.
        positions: `original` keeps each survivor's own RoPE index; `packed` renumbers the survivors from 0
            at every stage, and each layer goes on after its own last one; `stale` leaves the full-length
            rotary tensor in place.
        mask: `hard` removes dropped tokens; `soft` removes nothing and weights attention.
        propagation: `cascade` drops for good; `local` lets every stage choose among all prompt tokens;
            `stale_keys` freezes dropped tokens' states and leaves them visible.
        selection: Rule by which a stage keeps the highest scores.
        values: Per stage, the probability mass (`top_p`) or the lowest score kept (`threshold`).
        least: A stage leaves at least this many tokens, even where fewer are protected.
        temperature: Of the soft mask's keep probabilities.
    """

    layers: tuple[int, ...]
    keep_ratios: tuple[float, ...]
    preserve: Preserve
    positions: Positions = "original"
    mask: Mask = "hard"
    propagation: Propagation = "cascade"
    selection: Selection = "top_k"
    values: tuple[float, ...] = ()
    least: int = 0
    temperature: float = 1.0

    def counts(self, tokens: int) -> tuple[int, ...]:
        """Tokens of a prompt that top-k leaves after each stage."""
        return stage_counts(tokens, self.keep_ratios, self.preserve, self.least)

    def choose(self, stage: int, scores: Tensor, count: int) -> Tensor:
        """Rows that a stage keeps.

        Args:
            stage: Counted from 0.
            scores: ``[rows]`` float, of all candidates, in the order of the prompt.
            count: How many top-k keeps.

        Returns:
            Ascending int64 rows.
        """
        if self.selection == "top_p":
            count = top_p_count(scores, self.values[stage], self.preserve)
        elif self.selection == "threshold":
            count = threshold_count(scores, self.values[stage], self.preserve)
        return select(scores, count, self.preserve)


DENSE = Pruning(layers=(), keep_ratios=(), preserve=Preserve(head=0, tail=0))
