"""Job: make one corpus, deduplicated and split by document, with its manifest."""

import sys
from collections import Counter
from collections.abc import Iterable

from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.files import sha256_text
from ablations.core.job import Run, main
from ablations.lm.document import DOCUMENTS
from ablations.lm.texts.dataset import dataset_documents
from ablations.lm.texts.local import files_not_read, local_documents
from ablations.lm.texts.python import python_documents
from ablations.lm.texts.raw import RawDocument
from ablations.lm.texts.split import in_stable_order, without_repeats
from ablations.lm.texts.wheel import wheel_documents
from ablations.specs.lm import LocalText, PrepareTextSpec, PythonText, TextSource, WheelText
from ablations.specs.userfiles import require_source_unchanged


def prepare_text(run: Run[PrepareTextSpec]) -> None:
    """Read the source, drop repeated paragraphs, split by document, write ``documents.jsonl``.

    A source that belongs to a single split keeps its repeated paragraphs: its records are prompts that share
    lines by design, and no other split can leak into them.

    Raises:
        UserError: the source cannot be read, was edited since the job was planned, holds no text, or has two
            documents with one name.
    """
    source = run.spec.text
    split = None if isinstance(source, PythonText) else source.split
    name, raw = _open(source)
    ignored = files_not_read(source) if isinstance(source, LocalText) else {}
    if ignored:
        counts = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in ignored.items())
        print(f"{name}: files of other kinds are not read: {counts}", file=sys.stderr)
    read = _require_unique(tqdm(raw, desc="read documents", unit="", mininterval=2), name)
    deduplicated = read if split else without_repeats(read)
    documents = in_stable_order(
        (document for document in deduplicated if document.text.strip()), run.spec.seed, split
    )
    if not documents:
        chosen = " in the records that 'where' chooses" if getattr(source, "where", None) else ""
        raise UserError(f"{name}: no text in it{chosen}; name a text that is not empty")
    require_source_unchanged(source, run.job.input_digests)
    lines = "".join(document.model_dump_json() + "\n" for document in documents)
    characters: Counter[str] = Counter()
    for document in documents:
        characters[document.split] += len(document.text)
    facts = {
        "documents": dict(Counter(document.split for document in documents)),
        "characters": dict(characters),
        "characters_read": sum(len(document.text) for document in read),
        # Documents without text, before or after the repeated paragraphs were dropped.
        "blank_documents": len(read) - len(documents),
        # Counts by suffix; only a folder has such files.
        "files_not_read": ignored,
        "sha256": sha256_text(lines),
    }
    with new_artefact(run, facts) as folder:
        (folder / DOCUMENTS).write_bytes(lines.encode())


def _open(source: TextSource) -> tuple[str, Iterable[RawDocument]]:
    match source:
        case PythonText():
            return "the standard library of Python", python_documents(source)
        case WheelText():
            return f"{source.package}=={source.version}: {source.file}", wheel_documents(source)
        case LocalText():
            return source.path, local_documents(source)
        case _:
            return f"data set '{source.name}'", dataset_documents(source)


def _require_unique(documents: Iterable[RawDocument], name: str) -> list[RawDocument]:
    by_id: dict[str, RawDocument] = {}
    for document in documents:
        if document.id in by_id:
            raise UserError(f"{name}: two documents are called '{document.id}'; give each its own name")
        try:
            (document.id + document.text).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{name}: document {document.id!a} is not valid Unicode ({error.reason})"
            ) from None
        by_id[document.id] = document
    return list(by_id.values())


if __name__ == "__main__":
    main("ablations.lm.prepare_text", PrepareTextSpec, prepare_text, "Make one corpus, split by document.")
