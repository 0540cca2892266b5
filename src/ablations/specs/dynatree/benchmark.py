"""Spec and samples of `ablations.dynatree.benchmark`: every way to decode, interleaved in one process."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablations.core.contract import Contract, Identifier, Proportion
from ablations.specs.dynatree.arm import ArmSpec
from ablations.specs.dynatree.exactness import Departure
from ablations.specs.dynatree.prompts import Prompted
from ablations.specs.lm import Compute


class Greedy(Contract):
    """`generate` of `transformers` as it decodes greedily by default; its tokens are what all must emit."""

    method: Literal["generate"]
    """What `generate` does."""


class TransformersLookup(Contract):
    """`generate` with candidates copied from the text; keys are those of `GenerationConfig`."""

    method: Literal["prompt_lookup"]
    """What `generate` does."""
    prompt_lookup_num_tokens: PositiveInt = 10
    """Tokens copied after a match."""
    max_matching_ngram_size: PositiveInt = 2
    """Longest n-gram that is matched."""


class TransformersAssisted(Contract):
    """Assisted generation with the study's draft model; keys are those of `GenerationConfig`."""

    method: Literal["assisted"]
    """What `generate` does."""
    num_assistant_tokens: PositiveInt = 20
    """Tokens drafted in a round (in the first one, where a heuristic adapts the number)."""
    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] = "constant"
    """How the number follows acceptance."""
    assistant_confidence_threshold: Proportion = 0.4
    """Drafting stops at a token of less probability; 0 never stops."""


TransformersArm = Annotated[Greedy | TransformersLookup | TransformersAssisted, Field(discriminator="method")]


class BenchmarkArm(ArmSpec):
    """A decoding configuration of the study, and what it drafts from."""

    inputs: dict[str, str]
    """Input artefact of the job, by the name that the drafter knows it by."""
    prompts: PositiveInt | None = None
    """Most prompts of each kind, for a slow arm; null takes all."""


class BenchmarkRuns(Contract):
    """What runs beside the decoding configurations of a study, and how often all of them run."""

    transformers: dict[Identifier, TransformersArm]
    """Settings of `generate` by name; assisted ones are run with the draft model of the first experiment
    that has one (a drafter of kind `neural`)."""
    repeats: PositiveInt = 1
    """Runs of each arm on each prompt, the order of arms rotating."""

    @model_validator(mode="after")
    def _greedy_tokens_are_known(self) -> Self:
        if not any(isinstance(setting, Greedy) for setting in self.transformers.values()):
            raise ValueError(
                "'transformers': one entry needs 'method: generate': its tokens are what all must emit"
            )
        return self


class BenchmarkSpec(BenchmarkRuns, Prompted):
    """Job of `ablations.dynatree.benchmark`."""

    arms: Annotated[dict[str, BenchmarkArm], Field(min_length=1)]
    """Distinct decoding configurations of the study, by names that follow from them."""
    assistant: str | None
    """Input artefact that assists `generate`; null where no drafter of the study is a causal LM that
    `transformers` runs, and then no assisted setting is run."""
    warmup: NonNegativeInt
    """Untimed runs of each arm on each of its prompts before the first timed one; short ones, but for an arm
    that drafts on its first prompt."""
    compute: Compute
    """How the job computes."""


class ArmRun(Contract):
    """One arm on one prompt; counts and parts of the time are those of the last repeat."""

    seconds: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    """Whole generation, prefills included, one number for each repeat."""
    first_seconds: PositiveFloat
    """Until the first token."""
    new_tokens: PositiveInt
    """Tokens emitted."""
    matched: bool
    """Whether they are those of `generate`."""
    ties: NonNegativeInt
    """How many departures there are; those of `transformers` are not judged."""
    departures: tuple[Departure, ...] = ()
    """Where an arm of the study emitted another token than `generate`, or than the target's most probable
    one: ties, all of them."""
    target_forwards: NonNegativeInt
    """Target forwards after the prefill."""
    draft_forwards: NonNegativeInt
    """Tree levels drafted; 0 for `transformers`, which does not tell."""
    drafted: NonNegativeInt
    """Drafted nodes verified; 0 for `transformers`."""
    accepted: NonNegativeInt
    """Draft tokens accepted and emitted; of `transformers`, candidates."""
    draft_seconds: NonNegativeFloat
    """Spent in the drafter after its prefill; 0 for `transformers`, as the next two."""
    verify_seconds: NonNegativeFloat
    """Spent in target forwards after the prefill."""
    bookkeeping_seconds: NonNegativeFloat
    """Rest of the rounds."""


class BenchmarkSample(Contract):
    """One prompt, decoded by every arm."""

    document: str
    """Identifier of the prompt."""
    kind: str
    """Kind of prompt."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt."""
    repeated_4grams: Proportion
    """Share of the greedy continuation's 4-grams that occurred before in it."""
    runs: dict[str, ArmRun]
    """What each arm did; arms with fewer prompts are missing from some."""
