"""Everything the renderers need, computed once from the records: the contract between the paper rules."""

from typing import Any

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.study.contracts.base import Contract
from ablations.study.contracts.paper import Expectation, Identifier, Method, PaperSettings
from ablations.study.contracts.record import Outcome
from ablations.study.contracts.sdtp import Training
from ablations.study.statistics import Comparison, Estimate, Measure
from ablations.study.verdicts import OutcomeStatus, Part, Verdict


class Difference(Contract):
    """One setting in which an arm's spec differs from that of the experiment it is compared with."""

    key: str
    """Dotted key of the spec."""
    versus: Any
    """Value of the other experiment; null where it has none."""
    arm: Any
    """Value of the arm; null where it has none."""


class SdtpResult(Contract):
    """One pruning configuration against the unpruned model, beside which it was measured."""

    nll: float
    """Mean NLL of the continuation, nats per token."""
    reference_nll: float
    """The same for the unpruned model."""
    quality: Estimate
    """NLL minus the unpruned model's, per document."""
    speedup: Estimate | None
    """Log speed-up of prefill per timed document; null where none was timed."""
    seconds: PositiveFloat | None
    """Mean over documents of the pruned prefill's geometric mean over repeats."""
    reference_seconds: PositiveFloat | None
    """The same for the unpruned prefill."""
    keep_ratios: tuple[float, ...]
    """Share of the living tokens that each stage keeps."""
    kept_share: float
    """Share of the prompt's tokens that enter the last layer."""
    flops_share: float
    """Prefill FLOPs, scorers included, over the unpruned model's."""
    kv_share: float
    """Bytes of the KV cache after prefill over the unpruned model's."""


class DecodingResult(Contract):
    """One decoding configuration against autoregressive decoding, beside which it was measured."""

    autoregressive: bool
    """Whether this is autoregressive decoding itself; its speed-up is one by definition."""
    speedup: Estimate
    """Log speed-up over autoregressive decoding per prompt."""
    library_speedup: Estimate | None
    """Autoregressive decoding only: log speed-up over `transformers` `generate`; else null."""
    throughput: PositiveFloat
    """New tokens per second, prefill included: all tokens over all prompts' mean times."""
    tokens_per_forward: PositiveFloat
    """Acceptance length: accepted draft tokens + 1 per target forward."""
    nodes_per_round: NonNegativeFloat
    """Drafted nodes that the target verifies in one round."""
    draft_share: float | None
    """Share of drafting in the time of drafting and verifying; null where neither was timed."""
    prompts: PositiveInt
    """Prompts."""
    new_tokens: PositiveInt
    """Tokens generated over all prompts."""
    matched: NonNegativeInt
    """Prompts whose tokens equal the target's own greedy tokens."""
    tied: NonNegativeInt
    """Prompts that depart from them, at a top-2 margin within the stated tolerance."""
    repeated_4grams: float
    """Mean share of generated 4-grams that occurred before in the same text."""


class Row(Contract):
    """One experiment of the study, whether it ran or not."""

    id: Identifier
    """Id in the configuration."""
    method: Method
    """Which method it belongs to."""
    title: str
    """What tables call it."""
    section: str
    """Subsection of the paper it belongs to."""
    step: str | None
    """What the row adds or removes."""
    change: dict[str, Any]
    """What differs from the baseline."""
    hypothesis: str | None
    """What the experiment tests."""
    expect: Expectation
    """What the hypothesis predicts."""
    versus: Identifier | None
    """Experiment the effect is measured against."""
    budget: dict[str, Any]
    """Where its budget differs from the method's."""
    record: str
    """Path of its record."""
    record_sha256: str | None
    """SHA-256 of the record's bytes; null where there is none."""
    status: OutcomeStatus
    """How it ended."""
    outcome: Outcome | None
    """Exception of a crashed arm; null where there is no record."""
    differences: tuple[Difference, ...]
    """What its spec changes against `versus`; empty where either has no record."""
    inputs_shared: bool | None
    """Whether it used the same artefacts as `versus`; null where either has no record."""
    sdtp: SdtpResult | None
    """Result of a pruning configuration that ran."""
    decoding: DecodingResult | None
    """Result of a decoding configuration that ran."""
    parts: tuple[Part, ...]
    """Verdict on each prediction."""
    verdict: Verdict
    """Verdict on all of them together."""


class SdtpProtocol(Contract):
    """How the SDTP experiments were measured."""

    documents: PositiveInt
    """Held-out documents."""
    prompt_tokens: PositiveInt
    """Tokens of a prompt."""
    continuation_tokens: PositiveInt
    """Tokens after it whose NLL is the quality."""
    timed_documents: PositiveInt
    """Documents that are timed."""
    repeats: PositiveInt
    """Timed pairs per document."""
    warmup: NonNegativeInt
    """Untimed pairs before the first timed one."""
    decoder_layers: NonNegativeInt
    """Layers of the model; 0 where no arm ran to the end."""
    layers: tuple[NonNegativeInt, ...]
    """Pruning layers of the baseline (of the first arm where it has no record)."""
    keep_ratios: tuple[float, ...]
    """Its keep ratios."""
    head: NonNegativeInt
    """Its protected tokens at the start of the prompt."""
    tail: NonNegativeInt
    """Its protected tokens at the end of the prompt."""
    training: Training | None
    """How its scorer was trained."""
    spearman: float | None
    """Held-out rank correlation of its scores and saliency, a mean over stages."""
    spearman_untrained: float | None
    """The same before training."""


class PromptKind(Contract):
    """Decoding prompts of one kind."""

    kind: str
    """Name of the kind."""
    count: PositiveInt
    """How many."""
    tokens: PositiveInt | None
    """Cut to so many tokens; null takes each document whole."""


class DecodingProtocol(Contract):
    """How the decoding experiments were measured."""

    prompts: tuple[PromptKind, ...]
    """Prompts by kind, at the full budget."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt."""
    repeats: PositiveInt
    """Timed pairs per prompt."""
    warmup: NonNegativeInt
    """Untimed pairs before the first timed one."""
    weight_layout: str | None
    """How weights lie in memory for both arms; null where no arm ran to the end."""
    tie_margin: NonNegativeFloat | None
    """Top-2 margin within which a departure counts as a tie; null where no arm ran to the end."""


class Machine(Contract):
    """Where and with what some of the experiments were measured."""

    method: Method
    """Method of these experiments."""
    experiments: tuple[Identifier, ...]
    """Experiments."""
    host: str
    """Anonymised name of the host."""
    device: str
    """Name of the device."""
    device_type: str
    """`cpu` or `cuda`."""
    threads: int
    """CPU threads of a job."""
    dtype: str
    """Data type of weights and activations."""
    platform: str
    """Operating system and processor architecture."""
    versions: dict[str, str]
    """Installed versions."""
    git_commit: str | None
    """Commit of the working tree."""
    git_dirty: bool | None
    """Whether tracked files differed from it."""


class Summary(Contract):
    """Output of `ablations.paper.collect`, input of tables, figures and text."""

    study: str
    """Name of the study."""
    settings: PaperSettings
    """How the section is written."""
    models: dict[str, str]
    """What the paper calls each model, by role."""
    texts: dict[str, str]
    """What the paper calls each text, by role."""
    rows: tuple[Row, ...]
    """Every experiment, in the order of the configuration."""
    comparisons: tuple[Comparison, ...]
    """Every effect: rows against their `versus`, backward rows against the full method, orderings."""
    sdtp: SdtpProtocol | None
    """How SDTP was measured; null where no record says."""
    decoding: DecodingProtocol | None
    """How decoding was measured; null where no record says."""
    machines: tuple[Machine, ...]
    """Where it was measured, one entry per method and environment."""

    def row(self, name: str) -> Row | None:
        """The experiment called `name`; None where the study does not have it."""
        return next((row for row in self.rows if row.id == name), None)

    def comparison(self, arm: str, versus: str | None, measure: Measure) -> Comparison | None:
        """The effect of `arm` against `versus`; None where one of them has no result."""
        return next(
            (
                item
                for item in self.comparisons
                if (item.arm, item.versus, item.measure) == (arm, versus, measure)
            ),
            None,
        )
