"""A drafter with an interpolated n-gram language model of training text and live context."""

from collections import defaultdict
from heapq import nlargest
from itertools import islice
from operator import itemgetter

import torch
from torch import Tensor

from ablations.dynatree.drafters.ngram_counts import Followers, NgramCounts, suffix_hashes
from ablations.dynatree.drafters.tails import Tail, Tails
from ablations.dynatree.tree import TokenTree


class NgramDrafter:
    """Drafts from n-gram counts of the training text and of the prompt and emitted tokens.

    Interpolation after Witten and Bell (1991; Chen and Goodman 1999, section 2.5): with n(h, w) the
    count of w after h in the training text plus `context_weight` times that in the live context, n(h)
    its sum over w, and T(h) the distinct followers of h (those of both sources added),

        P(w | h) = (n(h, w) + T(h) P(w | h without its oldest token)) / (n(h) + T(h)),

    down to the unigram and the uniform distribution. The counts of followers that the artefact does not list
    go to the shorter context, so the probabilities sum to one. A node's path is part of its context h, and is
    counted once it is committed.

    Args:
        counts: Counts of the training text.
        context_weight: Weight of an occurrence in the live context relative to one in the training text.
        device: Device of the proposals.
    """

    alone = False

    def __init__(self, counts: NgramCounts, context_weight: float, device: torch.device) -> None:
        self.forwards = 0
        self._counts = counts
        self._weight = context_weight
        self._device = device

    def prefill(self, prompt: list[int], states: Tensor | None = None) -> None:
        """Read a prompt; see `Drafter.prefill`."""
        self.forwards = 0
        self._tails = Tails(self._counts.order - 1)
        self._live: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self._live_unigrams: dict[int, int] = {}
        self._live_total = 0
        # Followers in the training text that this prompt has looked up.
        self._trained: dict[int, Followers] = {}
        self._read(prompt)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The most probable followers of every node of the level; see `Drafter.propose`."""
        self.forwards += 1
        if level.start == 0:
            self._read(tree.tokens[level].tolist())
            self._common = self._most_common(branching)
        best = [self._best(context, branching) for context in self._tails.of_level(tree, level)]
        proposed = torch.tensor([[token for token, _ in row] for row in best], device=self._device)
        probabilities = torch.tensor(
            [[probability for _, probability in row] for row in best],
            dtype=torch.float64,
            device=self._device,
        )
        return proposed, probabilities

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor | None = None) -> None:
        """Count the accepted tokens; see `Drafter.commit`. `propose` has already counted the root."""
        self._read(tree.tokens[path[1:]].tolist())

    def _read(self, tokens: list[int]) -> None:
        for token in tokens:
            self._live_unigrams[token] = self._live_unigrams.get(token, 0) + 1
            for context in suffix_hashes(self._tails.text):
                followers = self._live[context]
                followers[token] = followers.get(token, 0) + 1
            self._tails.append(token)
        self._live_total += len(tokens)

    def _best(self, context: Tail, branching: int) -> list[tuple[int, float]]:
        """Most probable tokens after `context`, exactly.

        The probability of a token that no context lists is that of its unigram times a constant, so of these
        tokens only the most common ones are compared.
        """
        scores: dict[int, float] = {}
        mass = 1.0
        hashes = suffix_hashes(context)
        for length in range(len(hashes), 0, -1):
            trained = self._followers(length, hashes[length - 1])
            live = self._live.get(hashes[length - 1], {})
            if not trained.total and not live:
                continue
            types = trained.types + len(live)
            unit = mass / (trained.total + self._weight * sum(live.values()) + types)
            for token, count in zip(trained.tokens, trained.counts, strict=True):
                scores[token] = scores.get(token, 0.0) + unit * count
            for token, count in live.items():
                scores[token] = scores.get(token, 0.0) + unit * self._weight * count
            mass = unit * (trained.spare + len(live))
        for token in self._common:
            scores.setdefault(token, 0.0)
        for token in scores:
            scores[token] += mass * self._unigram(token)
        return nlargest(branching, scores.items(), key=itemgetter(1))

    def _followers(self, length: int, context: int) -> Followers:
        if context not in self._trained:
            self._trained[context] = self._counts.followers(length, context)
        return self._trained[context]

    def _unigram(self, token: int) -> float:
        counts = self._counts
        types = counts.types + len(self._live_unigrams)
        count = counts.unigrams[token] + self._weight * self._live_unigrams.get(token, 0)
        total = counts.total + self._weight * self._live_total
        return (count + types / len(counts.unigrams)) / (total + types)

    def _most_common(self, branching: int) -> list[int]:
        unseen = (token for token in self._counts.by_frequency if token not in self._live_unigrams)
        return nlargest(branching, [*self._live_unigrams, *islice(unseen, branching)], key=self._unigram)
