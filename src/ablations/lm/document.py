"""Documents of a prepared text and the file they are kept in."""

from ablations.core.contract import Contract
from ablations.specs.lm import Split

DOCUMENTS = "documents.jsonl"


class Document(Contract):
    """One document of a corpus, a line of its ``documents.jsonl``."""

    id: str
    """Identifier, unique within the corpus."""
    kind: str
    """What sort of document it is (`topic`, `module`, `file`, `record`, `row`, `rows`)."""
    split: Split
    """Split it belongs to."""
    text: str
    """The text."""
