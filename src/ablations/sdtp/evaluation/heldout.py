"""What every pruning configuration is evaluated on, and the unpruned model's results on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.core.job import Run
from ablations.core.record import read_contract
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import Window, read_corpus, windows
from ablations.lm.layered import LayeredLM
from ablations.sdtp.evaluation.retrieval import Passkey, passkeys
from ablations.specs.sdtp.reference import (
    Reference,
    ReferenceProbe,
    ReferenceRow,
    Retrieval,
    Windows,
)

REFERENCE_FILE = "reference.json"
STATES_FILE = "states.safetensors"

SomeRun = Run[Any]


@dataclass(frozen=True)
class UnprunedReference:
    """The unpruned model on the windows and passkey prompts of an evaluation.

    Attributes:
        rows: One per window.
        states: Per window ``[continuation, hidden]`` in the compute dtype, on the CPU: last-layer states
            before the final norm, from which `LayeredLM.head` predicts each token of the continuation.
        probes: One per passkey prompt.
    """

    rows: tuple[ReferenceRow, ...]
    states: list[Tensor]
    probes: tuple[ReferenceProbe, ...]


def heldout_windows(run: SomeRun, spec: Windows) -> list[Window]:
    """First held-out documents of the run's text, cut to prompt and continuation.

    Raises:
        UserError: an input is missing or corrupt, or too few documents are long enough.
    """
    tokenizer = load_tokenizer(run.job.path("model"))
    documents = read_corpus(run.job.path("text"))
    tokens = spec.prompt_tokens + spec.continuation_tokens
    return windows(documents, tokenizer, "heldout", spec.documents, tokens)


def heldout_passkeys(run: SomeRun, spec: Retrieval | None) -> list[Passkey]:
    """Passkey prompts in the run's held-out text; none where none are asked for.

    Raises:
        UserError: an input is missing or corrupt, or too few documents are long enough.
    """
    if spec is None:
        return []
    tokenizer = load_tokenizer(run.job.path("model"))
    documents = read_corpus(run.job.path("text"))
    texts = (document.text for document in documents if document.split == "heldout")
    return passkeys(tokenizer, texts, spec)


def require_positions(lm: LayeredLM, spec: Windows) -> None:
    """Check that the model was made for windows of this length.

    Raises:
        UserError: prompt and continuation exceed the model's positions.
    """
    tokens = spec.prompt_tokens + spec.continuation_tokens
    positions = lm.config.max_position_embeddings
    if tokens > positions:
        raise UserError(
            f"evaluation.prompt_tokens: prompt and continuation of {tokens} tokens exceed the model's"
            f" {positions} positions; lower it to at most {positions - spec.continuation_tokens}"
        )


def read_reference(manifest_path: Path, windows: Sequence[Window]) -> UnprunedReference:
    """Read what the `reference` job wrote for `windows`.

    Raises:
        UserError: a file is missing or corrupt, or it was made for other windows.
    """
    folder, _ = open_artefact(manifest_path)
    reference = read_contract(folder / REFERENCE_FILE, Reference)
    if [row.document for row in reference.rows] != [window.document for window in windows]:
        raise UserError(
            f"{manifest_path}: made for other windows than this evaluation; run snakemake to rebuild it"
        )
    states = load_file(folder / STATES_FILE)["states"]
    return UnprunedReference(reference.rows, list(states), reference.retrieval)
