"""The token tree of one round, in tensors that are allocated once and reused every round."""

import torch
from torch import Tensor


class TokenTree:
    """Drafted nodes in level order below a root, which is the target's newest token.

    A node is identified by its row. Parents come before children, and the nodes of a level are contiguous.

    Attributes:
        tokens: ``[size]`` int64 token ids.
        parents: ``[size]`` int64 rows; the root is its own parent.
        depths: ``[size]`` int64, 0 for the root.
        probabilities: ``[size]`` float64, path probabilities, the draft's probability of the path from the
            root.
        ancestors: ``[size, size]`` bool; row i marks node i and its ancestors. This is the tree attention
            mask (SpecInfer, arXiv 2305.09781, section 4.2).
        size: Nodes in use, the root included.
        levels: Levels below the root.
    """

    def __init__(self, max_nodes: int, device: torch.device) -> None:
        rows = max_nodes + 1
        self.max_nodes = max_nodes
        self.device = device
        self.size = 0
        self.levels = 0
        self._tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self._parents = torch.zeros(rows, dtype=torch.int64, device=device)
        self._depths = torch.zeros(rows, dtype=torch.int64, device=device)
        self._probabilities = torch.ones(rows, dtype=torch.float64, device=device)
        self._diagonal = torch.eye(rows, dtype=torch.bool, device=device)
        self._ancestors = self._diagonal.clone()

    @property
    def tokens(self) -> Tensor:
        """Token ids, ``[size]`` int64."""
        return self._tokens[: self.size]

    @property
    def parents(self) -> Tensor:
        """Rows of the parents, ``[size]`` int64."""
        return self._parents[: self.size]

    @property
    def depths(self) -> Tensor:
        """Depths, ``[size]`` int64."""
        return self._depths[: self.size]

    @property
    def probabilities(self) -> Tensor:
        """Path probabilities, ``[size]`` float64."""
        return self._probabilities[: self.size]

    @property
    def ancestors(self) -> Tensor:
        """Tree attention mask, ``[size, size]`` bool."""
        return self._ancestors[: self.size, : self.size]

    @property
    def room(self) -> int:
        """Nodes that may still be added."""
        return self.max_nodes + 1 - self.size

    def plant(self, token: int) -> None:
        """Start a round: drop all nodes and put `token` at the root."""
        self.size = 1
        self.levels = 0
        # The root's other values never change.
        self._tokens[0] = token

    def add_level(self, tokens: Tensor, parents: Tensor, probabilities: Tensor) -> slice:
        """Append one level.

        Args:
            tokens: ``[added]`` int64 token ids.
            parents: ``[added]`` int64 rows of their parents, nodes of the level before.
            probabilities: ``[added]`` path probabilities.

        Returns:
            Rows of the new level.

        Raises:
            ValueError: the nodes exceed the room.
        """
        start, end = self.size, self.size + tokens.shape[0]
        if tokens.shape[0] > self.room:
            raise ValueError(f"a tree of {self.max_nodes} nodes cannot hold {end - 1}")
        self._tokens[start:end] = tokens
        self._parents[start:end] = parents
        self.levels += 1
        self._depths[start:end] = self.levels
        self._probabilities[start:end] = probabilities
        # A child attends to its parent's ancestors, its parent and itself.
        self._ancestors[start:end] = self._ancestors[parents] | self._diagonal[start:end]
        self.size = end
        return slice(start, end)
