"""Spec and result of `ablations.sdtp.sweep`: prefill and end-to-end time against prompt length."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from ablations.core.contract import Contract, Distinct, Proportion
from ablations.core.record import Digests, Environment
from ablations.specs.lm import Compute
from ablations.specs.sdtp.counts import Layers, Preserve, Ratio
from ablations.specs.sdtp.timing import TimedPair


class SweepTiming(Contract):
    """What is timed at each prompt length."""

    keep_ratios: Annotated[tuple[Ratio, ...], Field(min_length=1), Distinct]
    """Keep ratios to measure; each is the ratio of every stage."""
    new_tokens: PositiveInt = 128
    """Tokens decoded after the prefill for the end-to-end time."""
    repeats: PositiveInt = 3
    """Rounds of each kind, the order rotating; of two, a third where an arm's differ by more than 5 %."""
    warmup: PositiveInt = 1
    """Untimed rounds before the first timed one."""
    beyond_positions: bool = False
    """Time prompts longer than the model's positions, too; what it would say of them means nothing."""


class SweepSpec(SweepTiming):
    """Job of `ablations.sdtp.sweep`: time at one prompt length, for several keep ratios."""

    layers: Layers
    """Layers at whose input a stage prunes, counted from 0."""
    preserve: Preserve
    """Tokens that no stage may drop."""
    tokens: PositiveInt
    """Tokens of the prompt."""
    compute: Compute
    """How the job computes."""


class SweepPoint(Contract):
    """One keep ratio at one prompt length."""

    keep_ratio: Ratio
    """Ratio of every stage."""
    flops: PositiveFloat
    """Floating-point operations of the pruned prefill, scorers included."""
    reference_flops: PositiveFloat
    """The same for the unpruned model."""
    kv_bytes: PositiveInt
    """Bytes of the KV cache after the pruned prefill."""
    reference_kv_bytes: PositiveInt
    """The same for the unpruned model."""
    prefill: tuple[TimedPair, ...]
    """Prefill times, a round each."""
    end_to_end: tuple[TimedPair, ...]
    """Times of prefill and decoding, a round each."""
    overhead: Proportion
    """Share of the pruned prefill that scoring, selecting and gathering take."""


class Sweep(Contract):
    """Output of `ablations.sdtp.sweep`."""

    spec: SweepSpec
    """What ran."""
    points: tuple[SweepPoint, ...]
    """One per keep ratio."""
    library: tuple[TimedPair, ...]
    """Unpruned prefill (`arm`) beside that of `transformers` (`reference`), last-position logits in both."""
    weight_layout: str
    """How this project's weights lie in memory (`stock`, or the prepacking used)."""
    environment: Environment
    """Where and with what."""
    digests: Digests
    """What determines it."""
