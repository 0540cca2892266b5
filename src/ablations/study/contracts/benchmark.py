"""The decoding benchmark: every way to decode a prompt, interleaved in one process."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablations.study.contracts.base import Contract
from ablations.study.contracts.dynatree import ArmSpec, Departure, Prompted, Share
from ablations.study.contracts.lm import Compute
from ablations.study.contracts.paper import Identifier, Identifiers
from ablations.study.contracts.statistics import Resampling


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
    assistant_confidence_threshold: Share = 0.4
    """Drafting stops at a token of less probability; 0 never stops."""


TransformersArm = Annotated[Greedy | TransformersLookup | TransformersAssisted, Field(discriminator="method")]


class BenchmarkArm(ArmSpec):
    """A decoding configuration of the study, and what it drafts from."""

    inputs: dict[str, str]
    """Input artefact of the job, by the name that the drafter knows it by."""
    prompts: PositiveInt | None = None
    """Most prompts of each kind, for a slow arm; null takes all."""


class BenchmarkSpec(Prompted):
    """Job of `ablations.dynatree.benchmark`."""

    arms: Annotated[dict[str, BenchmarkArm], Field(min_length=1)]
    """Distinct decoding configurations of the study, by names that follow from them."""
    transformers: Annotated[dict[Identifier, TransformersArm], Field(min_length=1)]
    """Settings of `generate`, by name."""
    assistant: str | None
    """Input artefact that assists `generate`; null where no drafter of the study is a causal LM that
    `transformers` runs, and then no assisted setting is run."""
    repeats: PositiveInt
    """Runs of each arm on each prompt, the order of arms rotating."""
    warmup: NonNegativeInt
    """Untimed runs of each arm on each of its prompts before the first timed one; short ones of arms that
    take a token at a time."""
    compute: Compute
    """How the job computes."""

    @model_validator(mode="after")
    def _has_a_reference(self) -> Self:
        check_settings(self.transformers)
        return self


def check_settings(settings: dict[str, TransformersArm]) -> None:
    """Check that greedy tokens are known.

    Raises:
        ValueError: no setting decodes greedily without candidates.
    """
    if not any(isinstance(setting, Greedy) for setting in settings.values()):
        raise ValueError(
            "'transformers': one entry needs 'method: generate': its tokens are what all must emit"
        )


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
    repeated_4grams: Share
    """Share of the greedy continuation's 4-grams that occurred before in it."""
    runs: dict[str, ArmRun]
    """What each arm did; arms with fewer prompts are missing from some."""


class BenchmarkPlan(Contract):
    """Stamp of the rule that sums the benchmark up: all that decides its table, short of the record."""

    study: str
    """Name of the study."""
    record: str
    """Path of the record."""
    arms: dict[str, Identifier]
    """Experiment that each arm of the record stands for, in the order of the study."""
    titles: dict[str, str]
    """What tables call each arm of the study."""
    best_of: Identifiers
    """Arms of which the fastest stands for the method."""
    resampling: Resampling
    """How its intervals are made: as those of the study's tables."""
    code: str
    """Digest of the meaning of the rule's code."""
    revision: int = 0
    """Counts how often a lost record made the table stale; nothing is computed from it."""
    lost: tuple[str, ...] = ()
    """The records that were lost then; nothing is computed from them."""
