"""The held-out windows that the reference and every pruning configuration are evaluated on."""

from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import Window, read_corpus, windows
from ablations.lm.layered import LayeredLM
from ablations.study.contracts.sdtp import EvaluateSpec, ReferenceSpec, Windows
from ablations.study.errors import UserError
from ablations.study.job import Run

REFERENCE_FILE = "reference.json"


def heldout_windows(run: Run[ReferenceSpec] | Run[EvaluateSpec], spec: Windows) -> list[Window]:
    """First held-out documents of the run's text, cut to prompt and continuation.

    Raises:
        UserError: an input is missing or corrupt, or too few documents are long enough.
    """
    tokenizer = load_tokenizer(run.job.path("model"))
    documents = read_corpus(run.job.path("text"))
    tokens = spec.prompt_tokens + spec.continuation_tokens
    return windows(documents, tokenizer, "heldout", spec.documents, tokens)


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
