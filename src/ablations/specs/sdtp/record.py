"""The record of an SDTP experiment: spec, samples and totals, joined from the blocks of its series."""

from typing import Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablations.core.contract import Contract, Proportion, conflict
from ablations.specs.lm import Compute
from ablations.specs.sdtp.calibrate import Calibration
from ablations.specs.sdtp.counts import Ratio, Stages
from ablations.specs.sdtp.evaluate import (
    Match,
    PromptSaliency,
    PruningComponents,
    RankTime,
    Training,
    WindowTokens,
)
from ablations.specs.sdtp.retrieval import Retrieval, RetrievalProbe
from ablations.specs.sdtp.timing import TimedPair, Timing


class Windows(WindowTokens):
    """Which held-out windows are evaluated."""

    documents: PositiveInt
    """Held-out documents, one window each."""


class EvaluateSpec(PruningComponents, Stages):
    """One pruning configuration on so many held-out windows and retrieval prompts."""

    match: Match | None
    """Configuration whose count or cost takes the place of `keep_ratios`; null for none."""
    saliency: PromptSaliency | None
    """How importances `saliency` and `oracle` are computed; null for others."""
    windows: Windows
    """Which windows."""
    retrieval: Retrieval | None
    """Retrieval prompts; null for none."""
    timing: Timing | None
    """How prefill time is measured; null measures none: of further seeds, of the oracle, and of an arm that
    differs from the baseline in cheap scores alone, whose cost is counted."""
    seed: int
    """Seed of random scores."""
    compute: Compute
    """How the job computes."""

    @model_validator(mode="after")
    def _a_method_is_timed(self) -> Self:
        if self.importance == "oracle" and self.timing is not None:
            raise conflict("timing", "'oracle' is no method, and its prefill is not timed; set it to null")
        return self

    @model_validator(mode="after")
    def _only_evaluated_documents_are_timed(self) -> Self:
        if self.timing is not None and self.timing.documents > self.windows.documents:
            raise conflict(
                "timing.documents",
                f"{self.timing.documents} timed documents, but only {self.windows.documents} are evaluated"
                " (evaluation.documents); lower it",
            )
        return self

    @model_validator(mode="after")
    def _ranks_retrieve_nothing(self) -> Self:
        if self.pipeline is not None and self.retrieval is not None:
            raise conflict("retrieval", "retrieval is not measured over pipeline ranks; set it to null")
        return self


class SdtpSample(Contract):
    """One held-out window under one pruning configuration."""

    document: str
    """Identifier of the document."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt before pruning."""
    nll: float
    """Mean NLL of the continuation after the pruned prompt, nats per token."""
    reference_nll: float
    """The same for the unpruned model."""
    agreement: Proportion
    """Share of the continuation's tokens for which both models' most probable token is the same."""
    kl: NonNegativeFloat
    """KL divergence of the pruned model's next-token distribution from the unpruned one's, a mean over the
    continuation, nats."""
    living: tuple[NonNegativeInt, ...]
    """Tokens that enter each layer during prefill."""
    pairs: tuple[TimedPair, ...] = ()
    """Prefill times; empty for windows that are not timed."""
    boundary_bytes: tuple[NonNegativeInt, ...] = ()
    """Bytes of hidden states sent over each pipeline boundary in the pruned prefill; empty without ranks."""
    reference_boundary_bytes: tuple[NonNegativeInt, ...] = ()
    """The same for the unpruned model."""
    ranks: tuple[RankTime, ...] = ()
    """How each rank spent the last timed pruned prefill; empty without ranks or where it is not timed."""


class SdtpTotals(Contract):
    """Facts of one pruning configuration; costs are means over the evaluated prompts."""

    keep_ratios: tuple[Ratio, ...]
    """Keep ratios in use, after matching."""
    prefill_flops: PositiveFloat
    """Floating-point operations of the pruned prefill, scorers (or their backward pass) included; those of
    the oracle are not."""
    reference_prefill_flops: PositiveFloat
    """The same for the unpruned model."""
    kv_bytes: PositiveFloat
    """Bytes of the KV cache that the pruned prefill leaves."""
    reference_kv_bytes: PositiveInt
    """The same for the unpruned model."""
    training: Training | None = None
    """How the scorer was trained; null where none is used."""
    calibration: Calibration | None = None
    """Numbers of a calibrated selection rule; null for top-k."""
    retrieval: tuple[RetrievalProbe, ...] = ()
    """Retrieval prompts."""
    weight_layout: str
    """How the weights lie in memory for both arms (`stock`, or the prepacking used)."""
    cores: PositiveInt
    """CPU cores this process could use."""
    peak_memory_bytes: NonNegativeInt
    """Peak memory of the process (CPU) or of the device's allocator (CUDA)."""
