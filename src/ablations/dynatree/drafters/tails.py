"""Last tokens of the live text, and of the text up to each node of a tree."""

from ablations.dynatree.tree import TokenTree

Tail = tuple[int, ...]
"""Last tokens of a text, the newest last."""


class Tails:
    """Tails of the live text and of a tree's nodes.

    Args:
        longest: Most tokens of a tail.

    Attributes:
        text: Tail of the live text.
    """

    def __init__(self, longest: int) -> None:
        self.text: Tail = ()
        self._longest = longest
        self._nodes: list[Tail] = []

    def append(self, token: int) -> None:
        """Append a token to the live text."""
        self.text = self._shifted(self.text, token)

    def of_level(self, tree: TokenTree, level: slice) -> list[Tail]:
        """Tails of a level's nodes, each node included; must be called for every level, from the root on.

        Args:
            tree: The tree; its root is the newest token of the live text.
            level: Rows of the level.
        """
        if level.start == 0:
            self._nodes = [self.text]
        else:
            tokens, parents = tree.tokens[level].tolist(), tree.parents[level].tolist()
            for token, parent in zip(tokens, parents, strict=True):
                self._nodes.append(self._shifted(self._nodes[parent], token))
        return self._nodes[level]

    def _shifted(self, tail: Tail, token: int) -> Tail:
        return (*tail, token)[-self._longest :] if self._longest else ()
