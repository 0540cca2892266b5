"""Configuration of the DynaTree half of a study."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from ablations.study.config.experiment import Ablation, Name
from ablations.study.contracts.base import Contract, Distinct
from ablations.study.contracts.benchmark import TransformersArm, check_settings
from ablations.study.contracts.dynatree import Adaptation, Drafter, Probability, Pruning, Shape
from ablations.study.contracts.lm import Compute, Split
from ablations.study.contracts.paper import Identifier, Identifiers


class DynatreeBaseline(Contract):
    """The component groups of DynaTree; an ablation changes one of them."""

    drafter: Name | None
    """Name of the drafter; null decodes autoregressively."""
    shape: Shape = Shape()
    """Shape of a draft."""
    pruning: Pruning = Pruning()
    """Which drafted paths are given up."""
    adaptation: Adaptation | None = None
    """How trees adapt to the draft's probabilities and to costs; null for a fixed shape."""

    @model_validator(mode="after")
    def _a_path_has_room(self) -> Self:
        if self.drafter is not None and self.pruning.max_nodes < self.shape.depth:
            raise ValueError(
                f"a tree of {self.pruning.max_nodes} nodes cannot hold a path of depth {self.shape.depth}:"
                " raise pruning.max_nodes or lower shape.depth"
            )
        return self

    @model_validator(mode="after")
    def _linear_is_one_unpruned_path(self) -> Self:
        if self.drafter is None or self.shape.method != "linear":
            return self
        if self.adaptation is not None:
            raise ValueError("a linear draft has a fixed length: set adaptation to null")
        if self.shape.branching != 1:
            raise ValueError("a linear draft is one path: set shape.branching to 1")
        if self.pruning.tau is not None:
            raise ValueError("a linear draft is not pruned: set pruning.tau to null")
        return self


class Prompts(Contract):
    """Decoding prompts of one kind."""

    text: Name
    """Name of the text."""
    split: Split = "heldout"
    """Split the prompts are taken from."""
    count: PositiveInt
    """How many prompts."""
    tokens: PositiveInt | None = None
    """Cut each document to its first so many tokens; null takes it whole."""
    chat: bool = False
    """Put each document, as a user's turn, into the target's chat template."""

    @model_validator(mode="after")
    def _chat_is_whole(self) -> Self:
        if self.chat and self.tokens is not None:
            raise ValueError("a turn of a chat is taken whole: set tokens to null, or chat to false")
        return self


def _without_null(kinds: Any) -> Any:
    return (
        {name: kind for name, kind in kinds.items() if kind is not None} if isinstance(kinds, dict) else kinds
    )


PromptKinds = Annotated[
    dict[Name, Prompts],
    Field(min_length=1),
    BeforeValidator(_without_null, json_schema_input_type=dict[Name, Prompts | None]),
]


class Decoding(Contract):
    """Budget of every decoding experiment."""

    new_tokens: PositiveInt = 64
    """Most tokens generated per prompt; end of sequence stops earlier."""
    repeats: PositiveInt = 1
    """Interleaved pairs of arm and reference per prompt."""
    discarded: NonNegativeInt = 0
    """Whole pairs of every prompt before those, which are not recorded."""
    warmup: NonNegativeInt = 1
    """Untimed runs of arm and reference on every prompt (on the first one, where pairs are discarded) before
    the first timed one; short ones of what takes a token at a time."""
    temperature: float = 0.0
    """Only 0: decoding is greedy."""
    compute: Compute = Compute()
    """How decoding is computed."""

    @field_validator("temperature")
    @classmethod
    def _greedy(cls, temperature: float) -> float:
        if temperature != 0:
            raise ValueError("sampling is not supported, decoding is greedy; leave it at 0")
        return temperature


class CostCalibration(Contract):
    """What drafting and verifying cost and bring, measured once per drafter for cost-aware trees."""

    prompts: Annotated[dict[Name, Prompts], Field(min_length=1)]
    """Validation prompts by kind."""
    new_tokens: PositiveInt = 48
    """Most tokens generated per prompt."""
    max_nodes: PositiveInt = 64
    """Most nodes of a cost-aware tree; its specs say so where `pruning.max_nodes` is larger."""
    prefix: PositiveInt = 256
    """Tokens in the cache while costs are measured."""
    repeats: PositiveInt = 7
    """Timed forwards of each size; the fastest counts."""


class BenchmarkSettings(Contract):
    """The benchmark: the study's decoding arms and `transformers`, interleaved in one process."""

    best_of: Annotated[Identifiers, Field(min_length=1)]
    """Experiments of which the fastest stands for the method."""
    transformers: dict[Identifier, TransformersArm]
    """Settings of `generate` by name; assisted ones are run with the draft model of the first experiment
    that has one (a drafter of kind `neural`)."""
    prompts: PositiveInt | None = None
    """Prompts of each kind; null: as many as `prompts` says."""
    new_tokens: PositiveInt | None = None
    """Most tokens generated per prompt; null: as in `decoding`."""
    repeats: PositiveInt = 1
    """Runs of each arm on each prompt, the order of arms rotating."""
    compute: Compute | None = None
    """How the benchmark is computed; null: as `decoding`."""

    @model_validator(mode="after")
    def _has_a_reference(self) -> Self:
        check_settings(self.transformers)
        return self


class Grids(Contract):
    """What the baseline's drafter would bring in other trees: exact replay, priced with calibrated costs."""

    linear: Annotated[tuple[PositiveInt, ...], Field(min_length=1), Distinct]
    """Lengths of linear drafts (K)."""
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1), Distinct]
    """Depths of trees (D)."""
    branchings: Annotated[tuple[PositiveInt, ...], Field(min_length=1), Distinct]
    """Children per node (B)."""
    taus: Annotated[tuple[Probability, ...], Field(min_length=1), Distinct]
    """Thresholds on the path probability, each with every depth and branching."""
    max_nodes: PositiveInt = 128
    """Most nodes of the trees above; costs are calibrated up to the largest, the baseline's among them."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt for the trees above."""
    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Most tokens generated per prompt, rising, for the baseline's tree and a linear draft of its depth."""

    @model_validator(mode="after")
    def _feasible(self) -> Self:
        for key, depths in (("linear", self.linear), ("depths", self.depths)):
            if self.max_nodes < max(depths):
                raise ValueError(
                    f"'max_nodes' must hold a path of depth {max(depths)}, which '{key}' asks for"
                )
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError("'lengths' must rise")
        return self


class DecodingBudget(Contract):
    """Where one experiment's budget is smaller than the method's."""

    prompts: PositiveInt
    """Prompts of each kind."""


class DynatreeAblation(Ablation):
    """One decoding experiment."""

    budget: DecodingBudget | None = None
    """Fewer prompts for a slow arm; the paper says so."""


class DynatreeConfig(Contract):
    """The DynaTree half of a study."""

    target: Name
    """Name of the target model."""
    drafters: dict[Name, Drafter]
    """Drafters by name."""
    baseline: DynatreeBaseline
    """The full method, which every experiment starts from."""
    prompts: PromptKinds
    """Decoding prompts by kind; an overlay takes a kind out by null."""
    decoding: Decoding = Decoding()
    """Budget of every experiment."""
    calibration: CostCalibration | None = None
    """What cost-aware trees and grids are calibrated on; needed where there are any."""
    grids: Grids | None = None
    """Trees to replay; null replays none."""
    benchmark: BenchmarkSettings | None = None
    """The benchmark of all arms in one process; null for none."""
    ablations: Annotated[dict[Identifier, DynatreeAblation], Field(min_length=1)]
    """Experiments by id, the full method included."""
    only: Identifiers | None = None
    """Ids to run; null runs all."""
