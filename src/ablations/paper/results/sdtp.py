"""What the paper prints of the SDTP experiments."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.core.contract import Contract, Identifier
from ablations.evidence.statistics import Comparison, Estimate
from ablations.paper.results.files import RecordFile
from ablations.specs.sdtp.evaluate import Training
from ablations.specs.sdtp.retrieval import Retrieval, RetrievalKind
from ablations.specs.sdtp.train import Losses


class RetrievalHits(Contract):
    """Facts found, over all retrieval prompts (and seeds)."""

    kind: RetrievalKind | None
    """Kind of the prompts; null for all kinds together."""
    prompts: PositiveInt
    """Prompts."""
    hits: NonNegativeInt
    """Answers that the arm says in full."""
    reference_hits: NonNegativeInt
    """Answers that the unpruned model says: the ceiling."""


class PipelineResult(Contract):
    """A prefill split over ranks; bytes are means over prompts."""

    ranks: PositiveInt
    """Processes."""
    boundary_bytes: tuple[float, ...]
    """Bytes of hidden states sent over each boundary."""
    reference_boundary_bytes: tuple[float, ...]
    """The same for the unpruned model."""
    idle: tuple[float, ...]
    """Share of each rank's prefill that it spends waiting or handing over; empty where no rank was timed."""


class SdtpResult(Contract):
    """One pruning configuration against the unpruned model, beside which it was measured."""

    seeds: PositiveInt
    """Seeds; the quality of a document is a mean over them, and its interval is for these seeds."""
    kl_seed_sd: NonNegativeFloat | None
    """Standard deviation between seeds of the mean KL divergence; null for a single seed."""
    nll: float
    """Mean NLL of the continuation, nats per token."""
    reference_nll: float
    """The same for the unpruned model."""
    added_nll: Estimate
    """NLL minus the unpruned model's, per document."""
    agreement: Estimate
    """Share of the continuation whose most probable token is the unpruned model's, per document."""
    kl: Estimate
    """KL divergence of the next-token distribution from the unpruned model's, nats per token, by document."""
    answer_nll: Estimate | None
    """NLL of answers, nats per token, per document of the prompts; null where nothing was asked for."""
    reference_answer_nll: float | None
    """The same for the unpruned model."""
    retrieval: tuple[RetrievalHits, ...]
    """Facts found, all kinds together first; empty where nothing was asked for."""
    speedup: Estimate | None
    """Log speed-up of prefill per timed document; null where none was timed."""
    counted_speedup: float
    """Log of the unpruned model's prefill FLOPs over the arm's."""
    bound: Estimate | None
    """Log of the speed-up over the ratio of the unpruned model's FLOPs to the arm's, per timed document."""
    seconds: PositiveFloat | None
    """Pruned prefill, a mean over documents of the median over rounds."""
    reference_seconds: PositiveFloat | None
    """The same for the unpruned prefill."""
    keep_ratios: tuple[float, ...]
    """Share of the living tokens that each stage keeps."""
    living: tuple[float, ...]
    """Share of the prompt's tokens that enters each layer, a mean over prompts."""
    training_losses: Losses | None
    """Weights of the losses that trained its scorer; null where it uses none."""
    kept: float
    """Tokens that enter the last layer, a mean over prompts."""
    kept_share: float
    """The same over the prompt's tokens."""
    flops: PositiveFloat
    """Prefill FLOPs, scorers included."""
    flops_share: float
    """The same over the unpruned model's."""
    kv_bytes: PositiveFloat
    """Bytes of the KV cache after prefill."""
    kv_share: float
    """The same over the unpruned model's."""
    peak_memory_bytes: NonNegativeInt
    """Peak memory of the measuring process (CPU) or of the device's allocator (CUDA)."""
    pipeline: PipelineResult | None
    """Ranks and what they send; null for a single process."""


class ScorerRanking(Contract):
    """How well one trained scorer ranks the tokens of held-out windows, a mean over its stages."""

    experiments: tuple[Identifier, ...]
    """Experiments that use it; the first stands for it in comparisons."""
    losses: Losses
    """Weights of the losses that trained it."""
    windows: PositiveInt
    """Held-out windows."""
    spearman: Estimate
    """Rank correlation of score and saliency, per window."""
    ndcg: Estimate
    """Normalised discounted cumulative gain, per window."""
    overlap: Estimate
    """Share of the tokens kept by saliency that are kept by score, per window."""
    spearman_untrained: Estimate
    """Rank correlation before training."""
    ndcg_untrained: Estimate
    """Normalised discounted cumulative gain before training."""
    overlap_untrained: Estimate
    """Overlap before training."""
    gain: Comparison
    """Rank correlation, trained minus untrained."""
    effect: Comparison | None
    """Rank correlation minus that of the baseline's scorer; null for that itself and where targets differ."""


class SweepResult(Contract):
    """One keep ratio at one prompt length; ranges are over rounds."""

    file: RecordFile
    """Sweep that it is from."""
    tokens: PositiveInt
    """Tokens of the prompt."""
    keep_ratio: float
    """Ratio of every stage."""
    new_tokens: PositiveInt
    """Tokens decoded after the prefill for the end-to-end time."""
    prefill: Estimate
    """Log speed-up of prefill: median over rounds, smallest and largest."""
    end_to_end: Estimate
    """Log speed-up of prefill and decoding: median over rounds, smallest and largest."""
    seconds: PositiveFloat
    """Pruned prefill, median over rounds."""
    reference_seconds: PositiveFloat
    """Unpruned prefill, median over rounds."""
    ideal: float
    """Log of the unpruned model's prefill FLOPs over the arm's."""
    kv_share: float
    """Bytes of the KV cache after prefill over the unpruned model's."""
    overhead: float
    """Share of the pruned prefill that scoring, selecting and gathering take."""
    library: float
    """Log speed-up of the unpruned prefill over that of `transformers`."""


class SdtpProtocol(Contract):
    """How the SDTP experiments were measured: by the baseline, or by what stands in for it."""

    arm: Identifier
    """Experiment that the rest is of: the baseline; where it did not run to the end, the first that did, or
    (where none did) the first with a record, the baseline before others."""
    documents: PositiveInt
    """Held-out documents."""
    prompt_tokens: PositiveInt
    """Tokens of a prompt."""
    continuation_tokens: PositiveInt
    """Tokens after it on which next-token distributions are compared."""
    timed_documents: NonNegativeInt
    """Documents that are timed."""
    repeats: NonNegativeInt
    """Timed rounds per document; of two, a third where they differ."""
    warmup: NonNegativeInt
    """Untimed rounds before the first timed one."""
    seeds: PositiveInt
    """Seeds of that experiment."""
    decoder_layers: NonNegativeInt
    """Layers of the model; 0 where no arm ran to the end."""
    layers: tuple[NonNegativeInt, ...]
    """Its pruning layers."""
    keep_ratios: tuple[float, ...]
    """Its keep ratios."""
    head: NonNegativeInt
    """Its protected tokens at the start of the prompt."""
    tail: NonNegativeInt
    """Its protected tokens at the end of the prompt."""
    training: Training | None
    """How its scorer was trained."""
    retrieval: Retrieval | None
    """Its retrieval prompts."""
    weight_layout: str | None
    """How weights lie in memory for both arms; null where no arm ran to the end."""
