"""Configuration of the DynaTree half of a study."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PositiveInt, field_validator, model_validator

from ablations.core.contract import Contract, Distinct, Identifier, Identifiers, conflict
from ablations.specs.dynatree.arm import (
    Adaptation,
    DistilledDraftSpec,
    Mixture,
    NeuralDraftSpec,
    NgramDraftSpec,
    Probability,
    SelfContained,
    Shape,
    TreePruning,
    check_tree,
)
from ablations.specs.dynatree.benchmark import BenchmarkRuns
from ablations.specs.dynatree.calibrate_costs import DraftTiming
from ablations.specs.dynatree.calibrate_drafter import CountedTrees
from ablations.specs.dynatree.calibrate_target import Rising, TargetTiming
from ablations.specs.dynatree.decode import DecodeRuns
from ablations.specs.dynatree.distil import DistilSpec
from ablations.specs.dynatree.distil_teacher import TeacherSpec
from ablations.specs.dynatree.fit_ngram import NgramSpec
from ablations.specs.dynatree.prompts import PromptSelection
from ablations.specs.lm import Compute
from ablations.study.config.experiment import Ablation, Name
from ablations.study.config.references import Refers


class NgramChoice(NgramDraftSpec, NgramSpec):
    """Interpolated n-gram language model over training text and live context; needs no training."""

    texts: Annotated[tuple[str, ...], Field(min_length=1), Refers("texts")]


class NeuralChoice(NeuralDraftSpec):
    """A causal LM that shares the target's vocabulary, with its own KV cache."""

    model: Annotated[str, Refers("models")]
    """Name of the draft model."""


class DistilledChoice(DistilledDraftSpec):
    """A draft of one decoder layer that is distilled from the target (`dynatree.distilling.model`)."""

    text: Annotated[str | None, Refers("texts")] = None
    """Name of the text whose training split the target continues; null where nothing is trained."""
    teacher: TeacherSpec | None = None
    """What the target writes to learn from; null where nothing is trained."""
    distil: DistilSpec = DistilSpec()
    """How the draft is trained."""

    @model_validator(mode="after")
    def _a_training_has_text(self) -> Self:
        for key in ("text", "teacher") if self.distil.epochs else ():
            if getattr(self, key) is None:
                raise conflict(key, "missing; the draft is trained on it (or take distil.start: epochs 0)")
        return self


class HybridChoice(Mixture):
    """Mixture of a distilled draft and n-grams; the n-grams alone draft a round where they are sure."""

    distilled: Annotated[str, Refers("dynatree.drafters", kind="distilled")]
    """Name of a drafter of kind `distilled`."""
    ngram: Annotated[str, Refers("dynatree.drafters", kind="ngram")]
    """Name of a drafter of kind `ngram`."""


DrafterChoice = Annotated[
    NgramChoice | NeuralChoice | DistilledChoice | HybridChoice | SelfContained,
    Field(discriminator="kind"),
]


class DynatreeBaseline(Contract):
    """The component groups of DynaTree; an ablation changes one of them."""

    drafter: Annotated[Name | None, Refers("dynatree.drafters")]
    """Name of the drafter; null decodes autoregressively."""
    shape: Shape = Shape()
    """Shape of a draft."""
    pruning: TreePruning = TreePruning()
    """Which drafted paths are given up."""
    adaptation: Adaptation | None = None
    """How trees adapt to the draft's probabilities and to costs; null for a fixed shape."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.drafter is not None:
            check_tree(self.shape, self.pruning, self.adaptation)
        return self


class Prompts(PromptSelection):
    """Decoding prompts of one kind."""

    text: Annotated[Name, Refers("texts")]


def _without_null(kinds: Any) -> Any:
    return (
        {name: kind for name, kind in kinds.items() if kind is not None} if isinstance(kinds, dict) else kinds
    )


PromptKinds = Annotated[
    dict[Name, Prompts],
    Field(min_length=1),
    BeforeValidator(_without_null, json_schema_input_type=dict[Name, Prompts | None]),
]


class Decoding(DecodeRuns):
    """Budget of every decoding experiment."""

    new_tokens: PositiveInt = 64
    timed: PositiveInt | None = None
    """Prompts of each kind that are timed, the first of them; on all of them decoding is replayed and priced
    by calibrated costs, which the times correct. Null times all, and replays none."""
    exploratory: PositiveInt | None = None
    """Prompts of each kind on which experiments are timed that are neither in `paper.confirmatory` nor
    compared with one of those; null: as many as the others."""
    temperature: float = 0.0
    """Only 0: decoding is greedy."""

    @field_validator("temperature")
    @classmethod
    def _greedy(cls, temperature: float) -> float:
        if temperature != 0:
            raise ValueError("sampling is not supported, decoding is greedy; leave it at 0")
        return temperature


class CostCalibration(TargetTiming, CountedTrees, DraftTiming):
    """What drafting and verifying cost and bring: the target's forwards once, and each drafter once.

    Drafted tokens then have the probabilities with which such tokens turned out on these prompts.
    """

    prompts: Annotated[dict[Name, Prompts], Field(min_length=1)]
    """Validation prompts by kind."""
    new_tokens: PositiveInt = 48
    """Most tokens generated per prompt; end of sequence stops earlier."""

    @model_validator(mode="after")
    def _trees_go_together(self) -> Self:
        check_tree(self.shape, self.pruning, None)
        return self


class BenchmarkSettings(BenchmarkRuns):
    """The benchmark: the study's decoding arms and `transformers`, interleaved in one process."""

    best_of: Annotated[Identifiers, Field(min_length=1), Refers("dynatree.ablations")]
    """Experiments of which the fastest stands for the method."""
    prompts: PositiveInt | None = None
    """Prompts of each kind; null: as many as `decoding` times."""
    new_tokens: PositiveInt | None = None
    """Most tokens generated per prompt; null: as in `decoding`."""
    compute: Compute | None = None
    """How the benchmark is computed; null: as `decoding`."""


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
    """Most nodes of the trees above."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt for the trees above."""
    lengths: Rising
    """Most tokens generated per prompt, rising, for the baseline's tree and a linear draft of its depth."""


class DecodingBudget(Contract):
    """Where one experiment's budget is smaller than the method's."""

    prompts: PositiveInt
    """Prompts of each kind that are timed."""


class DynatreeAblation(Ablation):
    """One decoding experiment."""

    budget: DecodingBudget | None = None
    """Fewer timed prompts for a slow arm; the paper says so."""

    @model_validator(mode="after")
    def _expects_of_quality_exactness_alone(self) -> Self:
        for key in ("text", "retrieval"):
            if getattr(self.expect, key) is not None:
                raise conflict(f"expect.{key}", "decoding has no such measure; it is SDTP's, leave it out")
        if self.expect.quality not in (None, "same"):
            raise conflict(
                "expect.quality",
                f"'{self.expect.quality}' cannot be: decoding emits the target's own tokens; say 'same' or"
                " leave it out",
            )
        return self


class DynatreeConfig(Contract):
    """The DynaTree half of a study."""

    target: Annotated[Name, Refers("models")]
    """Name of the target model."""
    drafters: dict[Name, DrafterChoice]
    """Drafters by name."""
    baseline: DynatreeBaseline
    """The full method, which every experiment starts from."""
    prompts: PromptKinds
    """Decoding prompts by kind; an overlay takes a kind out by null."""
    decoding: Decoding = Decoding()
    """Budget of every experiment."""
    calibration: CostCalibration | None = None
    """What costs are calibrated on; needed for replays, cost-aware trees and grids."""
    grids: Grids | None = None
    """Trees to replay; null replays none."""
    benchmark: BenchmarkSettings | None = None
    """The benchmark of all arms in one process; null for none."""
    ablations: Annotated[dict[Identifier, DynatreeAblation], Field(min_length=1)]
    """Experiments by id, the full method included."""
    only: Identifiers | None = None
    """Ids to run; null runs all."""

    @model_validator(mode="after")
    def _timed_prompts_are_a_part(self) -> Self:
        timed, exploratory = self.decoding.timed, self.decoding.exploratory
        if timed is not None and exploratory is not None and exploratory > timed:
            raise conflict("decoding.exploratory", f"{exploratory} are more than timed ({timed}); lower it")
        key, most = ("exploratory", exploratory) if timed is None else ("timed", timed)
        for kind, prompts in self.prompts.items():
            if most is not None and most > prompts.count:
                raise conflict(
                    f"decoding.{key}",
                    f"{most} are more than prompts.{kind}.count ({prompts.count}); lower it",
                )
        return self
