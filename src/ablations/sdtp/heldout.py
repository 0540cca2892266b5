"""The held-out windows that the reference and every pruning configuration are evaluated on."""

from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import Window, read_corpus, windows
from ablations.study.contracts.sdtp import EvaluateSpec, ReferenceSpec, Windows
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
