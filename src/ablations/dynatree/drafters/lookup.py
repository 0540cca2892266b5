"""Prompt lookup: what followed the longest suffix of the live text when it occurred before."""

import torch
from torch import Tensor

from ablations.dynatree.drafters.tails import Tail, Tails
from ablations.dynatree.tree import TokenTree
from ablations.study.contracts.dynatree import PromptLookup


class PromptLookupDrafter:
    """Drafts by copying from prompt and emitted tokens (Saxena, prompt lookup decoding, 2023).

    A node's text is everything before the root, and its path. Its first proposal followed the latest
    occurrence of the longest suffix that occurred before; the next ones followed earlier occurrences, then
    shorter suffixes. The probabilities are stated by the settings; a place without a match has
    probability 0 and is no proposal. A path counts as text once it is committed.

    Args:
        settings: Lengths of a match, and the stated probability.
        device: Where proposals go.
    """

    def __init__(self, settings: PromptLookup, device: torch.device) -> None:
        self.forwards = 0
        self._settings = settings
        self._device = device

    def prefill(self, prompt: list[int], states: Tensor | None = None) -> None:
        """Read a prompt; see `Drafter.prefill`."""
        self.forwards = 0
        self._tails = Tails(self._settings.longest)
        # Followers of each suffix; a dictionary keeps them in the order of their latest occurrence.
        self._followers: dict[Tail, dict[int, None]] = {}
        self._read(prompt)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """Followers of the longest matched suffixes; see `Drafter.propose`."""
        self.forwards += 1
        if level.start == 0:
            self._read(tree.tokens[level].tolist())
        found = [self._found(tail, branching) for tail in self._tails.of_level(tree, level)]
        proposed = torch.tensor([row + [0] * (branching - len(row)) for row in found], device=self._device)
        p = self._settings.probability
        stated = [
            [p * (1 - p) ** place if place < len(row) else 0.0 for place in range(branching)] for row in found
        ]
        return proposed, torch.tensor(stated, dtype=torch.float64, device=self._device)

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor | None = None) -> None:
        """Read the accepted tokens; see `Drafter.commit`. The root was read when it was proposed on."""
        self._read(tree.tokens[path[1:]].tolist())

    def _read(self, tokens: list[int]) -> None:
        for token in tokens:
            text = self._tails.text
            for length in range(self._settings.shortest, len(text) + 1):
                followers = self._followers.setdefault(text[-length:], {})
                followers.pop(token, None)
                followers[token] = None
            self._tails.append(token)

    def _found(self, tail: Tail, branching: int) -> list[int]:
        found: dict[int, None] = {}
        for length in range(len(tail), self._settings.shortest - 1, -1):
            for token in reversed(self._followers.get(tail[-length:], {})):
                found.setdefault(token)
                if len(found) == branching:
                    return list(found)
        return list(found)
