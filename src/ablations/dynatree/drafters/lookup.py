"""Prompt lookup: tokens that followed earlier occurrences of the longest suffix of the live text."""

import torch
from torch import Tensor

from ablations.dynatree.drafters.tails import Tail, Tails
from ablations.dynatree.tree import TokenTree
from ablations.specs.dynatree.arm import PromptLookup


class PromptLookupDrafter:
    """Drafts by copying from prompt and emitted tokens (Saxena, prompt lookup decoding, 2023).

    The text of a node is the live text, then the node's path. The first proposal is the token that followed
    the latest occurrence of the longest suffix of this text that occurred before; the next proposals followed
    earlier occurrences, then shorter suffixes. The settings give the probabilities of the proposals. A path
    is searched for matches once it is committed.

    Args:
        settings: Lengths of a match, and the stated probability.
        device: Device of the proposals.
    """

    alone = False

    def __init__(self, settings: PromptLookup, device: torch.device) -> None:
        self.forwards = 0
        self._settings = settings
        self._device = device

    def prefill(self, prompt: list[int], states: Tensor | None = None) -> None:
        """Read a prompt; see `Drafter.prefill`."""
        self.forwards = 0
        self._tails = Tails(self._settings.longest)
        # Followers of each suffix, in the order of their latest occurrence (dictionaries keep their order).
        self._followers: dict[Tail, dict[int, None]] = {}
        self._read(prompt)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """Followers of the longest matched suffixes; see `Drafter.propose`."""
        self.forwards += 1
        if level.start == 0:
            self._read(tree.tokens[level].tolist())
        matches = [self._matches(tail, branching) for tail in self._tails.of_level(tree, level)]
        proposed = torch.tensor([row + [0] * (branching - len(row)) for row in matches], device=self._device)
        p = self._settings.probability
        probabilities = [
            [p * (1 - p) ** rank if rank < len(row) else 0.0 for rank in range(branching)] for row in matches
        ]
        return proposed, torch.tensor(probabilities, dtype=torch.float64, device=self._device)

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor | None = None) -> None:
        """Read the accepted tokens; see `Drafter.commit`. `propose` has already read the root."""
        self._read(tree.tokens[path[1:]].tolist())

    def _read(self, tokens: list[int]) -> None:
        for token in tokens:
            text = self._tails.text
            for length in range(self._settings.shortest, len(text) + 1):
                followers = self._followers.setdefault(text[-length:], {})
                followers.pop(token, None)
                followers[token] = None
            self._tails.append(token)

    def _matches(self, tail: Tail, branching: int) -> list[int]:
        matches: dict[int, None] = {}
        for length in range(len(tail), self._settings.shortest - 1, -1):
            for token in reversed(self._followers.get(tail[-length:], {})):
                matches.setdefault(token)
                if len(matches) == branching:
                    return list(matches)
        return list(matches)
