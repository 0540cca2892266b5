"""Costs of decoding, by which trees are grown and replays priced; all seconds are of one device.

A forward of the target costs what its rows and the tokens before them say; a drafter, what the levels say
that it drafts from. What was not measured follows from the nearest two measurements by a straight line;
less than the least that was measured costs as much as that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from ablations.core.artefact import open_artefact
from ablations.core.contract import Contract, Proportion
from ablations.core.record import read_contract

GrowthKind = Literal["fixed", "dynamic", "cost_aware"]
"""What decides which nodes a tree has: its own bookkeeping has its own cost."""

LevelKind = Literal["root", "first", "deep", "alone_root", "alone_deep"]
"""What a level is drafted from: the root, its children, deeper nodes; `alone` where the cheap one of two
drafters drafts a round alone."""


COSTS_FILE = "costs.json"
"""File of a drafter's costs in its artefact."""

TARGET_FILE = "target.json"
"""File of a target's costs in its artefact."""


class Line(Contract):
    """Seconds that rise with a number."""

    base: NonNegativeFloat
    """Seconds at 0."""
    unit: NonNegativeFloat
    """Seconds for each one more."""

    def at(self, number: float) -> float:
        """Seconds at a number."""
        return self.base + self.unit * number


class TargetCosts(Contract):
    """Seconds of the target's forwards, as `ablations.dynatree.calibrate_target` found them."""

    rows: tuple[PositiveInt, ...]
    """Rows of a forward (root and nodes), rising from 1."""
    prefixes: tuple[PositiveInt, ...]
    """Tokens in the cache before them, rising."""
    verify: tuple[tuple[PositiveFloat, ...], ...]
    """Seconds of a forward, by prefix and rows; never falling with the prefix."""
    prompt_tokens: tuple[PositiveInt, ...]
    """Tokens of a prompt, rising."""
    prefill: tuple[PositiveFloat, ...]
    """Seconds from a prompt to its first new token, never falling."""

    def verify_seconds(self, rows: ArrayLike, prefix: ArrayLike) -> NDArray:
        """Seconds of forwards over `rows` rows after `prefix` tokens, broadcast against each other."""
        rows, prefix = np.broadcast_arrays(np.asarray(rows, float), np.asarray(prefix, float))
        by_prefix = np.stack([interpolated(rows, self.rows, seconds) for seconds in self.verify])
        if len(self.prefixes) == 1:
            return by_prefix[0]
        place = np.clip(np.searchsorted(self.prefixes, prefix) - 1, 0, len(self.prefixes) - 2)
        known = np.asarray(self.prefixes, float)
        share = (np.maximum(prefix, known[0]) - known[place]) / (known[place + 1] - known[place])
        before, after = (np.take_along_axis(by_prefix, (place + step)[None], axis=0)[0] for step in (0, 1))
        # Beyond the rows that were timed a longer prefix may seem cheaper: it costs no less further on.
        further = np.maximum(share - 1, 0) * np.maximum(after - before, 0)
        return before + np.minimum(share, 1) * (after - before) + further

    def prefill_seconds(self, tokens: int) -> float:
        """Seconds from a prompt of `tokens` tokens to its first new token."""
        return float(interpolated(np.array(tokens, float), self.prompt_tokens, self.prefill))

    @property
    def typical_prefix(self) -> float:
        """Tokens in the cache for which costs stand where no prefix is known: the middle of the measured
        ones.
        """
        return (self.prefixes[0] + self.prefixes[-1]) / 2


def interpolated(at: NDArray, known: Sequence[int], seconds: Sequence[float]) -> NDArray:
    """Seconds between measured numbers and, by the line through the last two, above them; the least below.

    Args:
        at: Numbers, of any shape.
        known: Measured numbers, rising.
        seconds: Their seconds.
    """
    numbers, values = np.asarray(known, float), np.asarray(seconds, float)
    slopes = np.diff(values) / np.diff(numbers)
    # Noise may let the last two fall.
    slope = max(0.0, slopes[-1]) if len(slopes) else 0.0
    return np.interp(at, numbers, values) + slope * np.maximum(at - numbers[-1], 0)


class Drafting(Protocol):
    """How a prompt was decoded with drafts, round by round."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        ...

    @property
    def new_tokens(self) -> int:
        """Tokens generated."""
        ...

    @property
    def drafted_per_round(self) -> Sequence[int]:
        """Nodes verified in each round."""
        ...

    @property
    def accepted_per_round(self) -> Sequence[int]:
        """Draft tokens accepted in each round."""
        ...

    @property
    def levels_per_round(self) -> Sequence[Sequence[int]]:
        """Rows of each level that was drafted from, by round."""
        ...

    @property
    def alone_per_round(self) -> Sequence[bool]:
        """Whether the cheap one of two drafters drafted the round alone."""
        ...


class Price(NamedTuple):
    """Seconds of decoding one prompt.

    Attributes:
        first: Until the first token.
        rounds: Of all rounds after it.
    """

    first: float
    rounds: float

    @property
    def whole(self) -> float:
        """Of the whole generation."""
        return self.first + self.rounds


class Costs(Contract):
    """What `ablations.dynatree.calibrate_costs` found of a drafter on a target."""

    target: TargetCosts
    """Costs of the target's forwards."""
    levels: Mapping[LevelKind, Line]
    """Seconds of drafting from a level, by its rows; of a root, by the tokens of text that are new to the
    drafter."""
    commit: Line
    """Seconds of the drafter's end of a round, by accepted tokens."""
    prefill: Line
    """Seconds in which the drafter reads a prompt, by its tokens."""
    bookkeeping: Mapping[GrowthKind, Line]
    """Seconds of a round outside drafter and target, by drafted nodes."""
    stated: tuple[NonNegativeFloat, ...]
    """Path probabilities that the draft states, rising."""
    accepted: tuple[Proportion, ...]
    """Shares of the nodes of these path probabilities that the target accepts, never falling."""
    child: Proportion
    """Share of accepted nodes with a drafted level below of which a child is accepted too."""
    rate: PositiveFloat
    """Tokens per second of trees chosen by these costs on the validation prompts: the price of time."""

    def price(self, drafting: Drafting, growth: GrowthKind) -> Price:
        """Price of decoding a prompt with drafts."""
        accepted = np.asarray(drafting.accepted_per_round, int)
        nodes = np.asarray(drafting.drafted_per_round, int)
        before = drafting.prompt_tokens + np.cumsum(accepted + 1) - (accepted + 1)
        seconds = float(self.target.verify_seconds(nodes + 1, before).sum())
        unread = 1
        for taken, size, levels, alone in zip(
            accepted, nodes, drafting.levels_per_round, drafting.alone_per_round, strict=True
        ):
            for depth, rows in enumerate(levels):
                seconds += self.level(depth, alone).at(rows if depth else unread)
            seconds += self.commit.at(taken) + self.bookkeeping[growth].at(size)
            unread = int(taken) + 1 + (unread if alone else 0)
        prompt = drafting.prompt_tokens
        return Price(self.target.prefill_seconds(prompt) + self.prefill.at(prompt), seconds)

    def autoregressive(self, drafting: Drafting) -> Price:
        """Price of decoding the same tokens one by one."""
        return autoregressive_price(self.target, drafting.prompt_tokens, drafting.new_tokens)

    def level(self, depth: int, alone: bool) -> Line:
        """Cost of drafting from a level; where no such level was seen, that of the nearest kind."""
        return nearest(self.levels, level_kind(depth, alone))


def autoregressive_price(target: TargetCosts, prompt_tokens: int, new_tokens: int) -> Price:
    """Price of decoding a prompt one token at a time."""
    prefixes = prompt_tokens + np.arange(new_tokens - 1)
    return Price(target.prefill_seconds(prompt_tokens), float(target.verify_seconds(1, prefixes).sum()))


def level_kind(depth: int, alone: bool) -> LevelKind:
    """Kind of a level by its depth, counted from 0 at the root."""
    if alone:
        return "alone_deep" if depth else "alone_root"
    return "root" if depth == 0 else "first" if depth == 1 else "deep"


_NEAREST: Mapping[LevelKind, tuple[LevelKind, ...]] = {
    "root": ("root", "first", "deep", "alone_root", "alone_deep"),
    "first": ("first", "deep", "root", "alone_deep", "alone_root"),
    "deep": ("deep", "first", "root", "alone_deep", "alone_root"),
    "alone_root": ("alone_root", "alone_deep", "root", "first", "deep"),
    "alone_deep": ("alone_deep", "alone_root", "deep", "first", "root"),
}


def nearest(levels: Mapping[LevelKind, Line], kind: LevelKind) -> Line:
    """The cost of a kind of level, or of the nearest kind that was measured; nothing where none was."""
    return next((levels[name] for name in _NEAREST[kind] if name in levels), Line(base=0.0, unit=0.0))


def read_costs(manifest: Path) -> Costs:
    """Read what `ablations.dynatree.calibrate_costs` made.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    return read_contract(folder / COSTS_FILE, Costs)


def read_target_costs(manifest: Path) -> TargetCosts:
    """Read what `ablations.dynatree.calibrate_target` made.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    return read_contract(folder / TARGET_FILE, TargetCosts)
