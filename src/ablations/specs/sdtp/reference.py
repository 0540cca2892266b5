"""Spec and result of `ablations.sdtp.reference`: the unpruned model on what arms are evaluated on."""

from typing import Annotated

from pydantic import Field, PositiveInt

from ablations.core.contract import Contract, Proportion
from ablations.specs.lm import Compute


class Windows(Contract):
    """Which held-out windows are evaluated."""

    documents: PositiveInt
    """Held-out documents, one window each."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt, the part that is pruned."""
    continuation_tokens: PositiveInt
    """Tokens after the prompt whose NLL is the quality."""


class Retrieval(Contract):
    """Passkey retrieval: a number hidden in held-out text, asked for at the end of the prompt."""

    tokens: PositiveInt
    """Tokens of a prompt, the question included."""
    depths: Annotated[tuple[Proportion, ...], Field(min_length=1)]
    """Where the number is hidden, as shares of the text before the question."""
    keys: PositiveInt
    """Prompts (each with a number of its own) per depth."""


class ReferenceSpec(Contract):
    """Job of `ablations.sdtp.reference`: the unpruned model on all that arms are evaluated on."""

    windows: Windows
    """Which windows."""
    retrieval: Retrieval | None
    """Passkey prompts; null for none."""
    compute: Compute
    """How the job computes."""


class ReferenceRow(Contract):
    """The unpruned model on one window."""

    document: str
    """Identifier of the document."""
    nll: float
    """Mean NLL of the continuation, nats per token."""


class ReferenceProbe(Contract):
    """The unpruned model on one passkey prompt."""

    depth: Proportion
    """Where the number was hidden."""
    hit: bool
    """Whether greedy decoding says the number."""
    nll: float
    """Mean NLL of the number's tokens, nats per token."""


class Reference(Contract):
    """Output of `ablations.sdtp.reference`; the states of continuations lie beside it."""

    rows: tuple[ReferenceRow, ...]
    """One row per window, in the order of evaluation."""
    retrieval: tuple[ReferenceProbe, ...]
    """One row per passkey prompt, in the order of evaluation."""
