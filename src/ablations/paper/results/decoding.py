"""What the paper prints of the decoding experiments."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.core.contract import Contract
from ablations.evidence.statistics import Estimate


class DepthCount(Contract):
    """How often drafting reached one depth, and how often the target accepted a node there."""

    tested: PositiveInt
    """Rounds in which all nodes above were accepted and children were drafted."""
    accepted: NonNegativeInt
    """Those rounds in which one of the children was accepted and emitted."""


class DecodingMeasures(Contract):
    """What decoding of some prompts measured; counts and shares of time are over all of them together."""

    prompts: PositiveInt
    """Timed prompts."""
    replayed: PositiveInt | None
    """Replayed prompts, the timed ones among them, by which acceptance is counted and speed is priced; null
    where none were."""
    new_tokens: PositiveInt
    """Tokens generated over all prompts that were counted, timed or replayed."""
    speedup: Estimate
    """Log speed-up over autoregressive decoding per prompt, prefill included: of priced prompts, corrected by
    the timed ones, where prompts were replayed; else of the timed ones."""
    measured_speedup: Estimate | None
    """Log speed-up of the timed prompts alone, where others were replayed; else null."""
    rounds_speedup: Estimate | None
    """As `speedup`, of the time after the first token; null where the reference does not tell it, or where
    a kind has no timed prompt that goes on after it."""
    price_error: Estimate | None
    """Priced log speed-up of the timed prompts minus the measured one; null where nothing was priced."""
    throughput: PositiveFloat
    """New tokens per second, prefill included: all tokens over the sum of the prompts' median times."""
    first_seconds: PositiveFloat
    """Seconds until the first token, the draft's own prefill included; a mean over prompts."""
    token_seconds: PositiveFloat | None
    """Seconds per token after the first, over all prompts; null where every prompt gave one token."""
    tokens_per_forward: PositiveFloat
    """Acceptance length: accepted draft tokens + 1 per target forward."""
    forwards_per_token: NonNegativeFloat | None
    """Target forwards after prefill per token after the first; null where there is no such token."""
    nodes_per_round: NonNegativeFloat
    """Drafted nodes that the target verifies in one round."""
    accepted_per_node: float | None
    """Accepted draft tokens over drafted nodes; null where nothing was drafted."""
    draft_share: float | None
    """Share of drafting in the time of the rounds; null where none was timed."""
    verify_share: float | None
    """Share of the target's forwards in it."""
    bookkeeping_share: float | None
    """Share of all else: growing and choosing trees, masks, acceptance, compacting the cache."""
    depths: tuple[DepthCount, ...]
    """Acceptance at depth 1, 2, and so on, given that all above was accepted."""
    matched: NonNegativeInt
    """Prompts whose tokens equal the target's own greedy tokens."""
    tied: NonNegativeInt
    """Prompts that depart from them, at a top-2 margin within the stated tolerance."""
    repeated_4grams: float
    """Mean share of generated 4-grams that occurred before in the same text."""


class KindMeasures(DecodingMeasures):
    """The same of one kind of prompts."""

    kind: str
    """Name of the kind."""


class DecodingResult(DecodingMeasures):
    """One decoding configuration against autoregressive decoding, beside which it was measured."""

    autoregressive: bool
    """Whether this is autoregressive decoding itself; its speed-up is one by definition."""
    library_speedup: Estimate | None
    """Autoregressive decoding only: log speed-up over `transformers` `generate`; else null."""
    unlike: NonNegativeInt
    """Timed prompts whose rounds were not as replayed."""
    kinds: tuple[KindMeasures, ...]
    """Each kind of prompts by itself, in the order of the configuration."""


class PromptKind(Contract):
    """Decoding prompts of one kind."""

    kind: str
    """Name of the kind."""
    count: PositiveInt
    """How many."""
    timed: PositiveInt
    """On how many of them, the first, an arm with the full budget is timed."""
    tokens: PositiveInt | None
    """Cut to so many tokens; null takes each document whole."""


class DecodingProtocol(Contract):
    """How the decoding experiments were measured."""

    prompts: tuple[PromptKind, ...]
    """Prompts by kind."""
    replayed: bool
    """Whether drafting arms are replayed on all of them."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt."""
    repeats: PositiveInt
    """Timed rounds per prompt; of two, a third where they differ."""
    warmup: NonNegativeInt
    """Untimed rounds before the first timed one."""
    weight_layout: str | None
    """How weights lie in memory for both arms; null where no arm ran to the end."""
    tie_margin: NonNegativeFloat | None
    """Top-2 margin within which a departure counts as a tie; null where no arm ran to the end."""
