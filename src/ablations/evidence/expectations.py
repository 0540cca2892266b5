"""What was expected of each experiment, and how large an effect must be to count."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ablations.core.contract import Contract, Identifier, Identifiers

Method = Literal["sdtp", "dynatree"]
Level = Literal["same", "up", "up_strong", "down", "down_strong"]
Aspect = Literal["text", "retrieval", "speed", "above", "below", "about", "less_traffic", "exact", "crash"]
"""What a prediction is about: quality on text or in retrieval, prefill speed, an ordering of decoding speeds,
bytes over pipeline boundaries, identity of emitted tokens, or the crash of the method."""


class Expectation(Contract):
    """What a hypothesis predicts of the effect; a null or empty field predicts nothing."""

    quality: Level | Literal["crash"] | None = None
    """Of SDTP a prediction for both `text` and `retrieval`, or `crash`; of decoding `same`, for exactness."""
    text: Level | None = None
    """Predicted effect on quality on text (`down`: the KL divergence from the unpruned model rises)."""
    retrieval: Level | None = None
    """Predicted effect on retrieval (`down`: the NLL of answers rises)."""
    speed: Level | None = None
    """Predicted effect on speed (`up`: faster)."""
    above: Identifiers = ()
    """Experiments whose speed-up this one exceeds."""
    below: Identifiers = ()
    """Experiments whose speed-up exceeds this one's."""
    about: Identifiers = ()
    """Experiments whose speed-up this one equals within the margin."""
    less_traffic: Identifiers = ()
    """Experiments that send more bytes over the pipeline's boundaries than this one."""


class Experiment(Contract):
    """One row of the study as the paper sees it."""

    id: Identifier
    """Id in the configuration."""
    method: Method
    """Method that it studies."""
    title: str
    """What tables call it."""
    section: str
    """Subsection of the paper it belongs to."""
    step: str | None = None
    """What the row adds or removes, as forward and backward tables call it."""
    change: dict[str, Any]
    """What differs from the baseline; empty for the baseline."""
    hypothesis: str | None = None
    """What the experiment tests, one sentence."""
    expect: Expectation = Expectation()
    """What the hypothesis predicts."""
    versus: Identifier | None
    """Experiment that the effect is measured against; null where it is the reference beside the arm."""
    records: Annotated[tuple[str, ...], Field(min_length=1)]
    """Paths of its records, relative to the working directory, one per seed; only the first is timed."""
    seeds: tuple[int, ...] = ()
    """Training seed of the scorer of each record; empty where no trained scorer plays a part."""
    budget: dict[str, Any] = Field(default={})
    """What differs from the method's budget (fewer prompts, for example)."""


class Thresholds(Contract):
    """Where `same` ends and `strong` begins, on the scale of each measure."""

    text_same: PositiveFloat = 0.05
    """Largest |difference of KL divergence| (nats per token) that counts as the same: tokens that the
    unpruned model draws lose 5 % of their probability, in the geometric mean."""
    text_strong: PositiveFloat = 0.3
    """Smallest |difference of KL divergence| (nats per token) that counts as strong: of text that the
    unpruned model writes, the perplexity rises by 35 %."""
    retrieval_same: PositiveFloat = 0.1
    """Largest |difference of answer NLL| (nats per token) that counts as the same: an answer of five tokens
    loses two fifths of its probability."""
    retrieval_strong: PositiveFloat = 0.5
    """Smallest |difference of answer NLL| (nats per token) that counts as strong: an answer of five tokens
    loses more than nine tenths of its probability."""
    speed_same: Annotated[float, Field(gt=1.0)] = 1.05
    """Largest ratio of speed-ups (either way) that counts as the same speed."""
    speed_strong: Annotated[float, Field(gt=1.0)] = 1.5
    """Smallest ratio of speed-ups (either way) that counts as a strong effect."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Family-wise error rate of all outcome words together; unadjusted intervals cover 1 - alpha."""


class Look(Contract):
    """A moment at which the confirmatory family is decided, declared before any data."""

    documents: PositiveInt
    """Documents of text that it uses, the first of those measured."""
    retrieval: PositiveInt
    """Retrieval prompts that it uses, the first of those measured."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)]
    """Its share of the family-wise error rate."""


class Confirmatory(Contract):
    """The experiments whose predictions are decided as one family, chosen before any data."""

    sdtp: Identifiers = ()
    """Ablations of SDTP."""
    dynatree: Identifiers = ()
    """Ablations of decoding."""
