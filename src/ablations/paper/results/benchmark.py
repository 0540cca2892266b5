"""What the decoding benchmark found, as ``results/benchmark/decoding.json`` holds it."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.core.contract import Contract
from ablations.core.record import Environment

Family = Literal["autoregressive", "drafting", "transformers"]


class Speedup(Contract):
    """Ratio of tokens per second, a geometric mean over prompts, with the interval of the study's tables."""

    arm: str
    """Which arm."""
    versus: str
    """Over which one."""
    value: PositiveFloat
    """The ratio."""
    low: PositiveFloat | None
    """Lower end of its interval; null where there is none."""
    high: PositiveFloat | None
    """Upper end of its interval; null where there is none."""
    prompts: PositiveInt
    """Prompts that both decoded."""
    kinds: dict[str, PositiveFloat]
    """The ratio of each kind of prompts."""


class TimeSplit(Contract):
    """Shares of an arm's time over all its prompts; they add up to one, but for rounding."""

    first_token: NonNegativeFloat
    """Up to the first token: prefills of target and draft."""
    draft: NonNegativeFloat
    """In the drafter."""
    verify: NonNegativeFloat
    """In target forwards."""
    bookkeeping: NonNegativeFloat
    """Rest of the rounds."""


class ArmResult(Contract):
    """One arm of the benchmark."""

    id: str
    """Id of the experiment, or name of the setting of `generate`."""
    title: str
    """What it is."""
    family: Family
    """Whose it is."""
    tokens_per_second: PositiveFloat
    """All new tokens over all time, prefills included."""
    over_best_ar: Speedup
    """Speed-up over the fastest autoregressive arm."""
    over_best_hf: Speedup
    """Speed-up over the fastest setting of `generate`."""
    tokens_per_forward: PositiveFloat
    """Accepted tokens and the target's own, per target forward of the rounds; the prefill is none of them."""
    time: TimeSplit | None
    """Where the time went; null for `transformers`, which does not tell."""
    prompts: PositiveInt
    """Prompts it decoded."""
    identical: NonNegativeInt
    """Prompts whose tokens are those of `generate`."""
    ties: NonNegativeInt
    """Departures of an arm of the study, all of them ties."""


class DecodingBenchmark(Contract):
    """The benchmark of decoding, summed up from its record."""

    speedup_over_best_ar: Speedup | None
    """The method over the fastest autoregressive arm; null where no arm of `best_of` ran."""
    speedup_over_best_hf: Speedup | None
    """The method over the fastest setting of `generate`; null where no arm of `best_of` ran."""
    neural_speedup_over_best_ar: Speedup | None
    """The fastest arm with a neural draft, alone or mixed with n-grams, over the fastest autoregressive
    arm; null where no arm has one."""
    study: str
    """Name of the study."""
    record: str
    """Path of the record."""
    best_ar: str
    """Fastest autoregressive arm: this project's or `generate`."""
    best_hf: str
    """Fastest setting of `generate`."""
    best_of: tuple[str, ...]
    """Arms of which the fastest stands for the method."""
    notes: tuple[str, ...]
    """What a reader of the numbers must know."""
    prompts: dict[str, PositiveInt]
    """Held-out prompts of each kind."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt."""
    repeats: PositiveInt
    """Runs of each arm on each prompt."""
    tie_margin: NonNegativeFloat
    """Difference of logits up to which a departure counted as a tie."""
    weight_layout: str
    """Form of the target that the arms of the study run; `generate` runs the same weights as packed."""
    repeated_4grams: NonNegativeFloat
    """Mean share of generated 4-grams that occurred before in the same text."""
    arms: tuple[ArmResult, ...]
    """Every arm."""
    environment: Environment
    """Where and with what."""
