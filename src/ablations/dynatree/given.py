"""What a command line names, as the input artefacts of a decoding job: checkpoints, drafts, prompts."""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ablations.lm.architecture import parts_of
from ablations.lm.document import DOCUMENTS, Document
from ablations.lm.loading import readable, require_files, require_no_adapter
from ablations.lm.texts.local import DATA, JSON_LINES
from ablations.lm.tokenizer import read_tokenizer, start_as_text
from ablations.study.artefact import Manifest
from ablations.study.contracts.dynatree import (
    DistilledDraftSpec,
    DraftSpec,
    NeuralDraftSpec,
    NgramDraftSpec,
    PromptLookup,
)
from ablations.study.contracts.record import Digests
from ablations.study.errors import UserError
from ablations.study.files import canonical_json, sha256_file, sha256_text, write_text
from ablations.study.record_io import read_contract

MANIFEST = "manifest.json"
BY_HAND = "by hand"


def checkpoint(path: Path, option: str, folder: Path) -> Path:
    """Manifest of a checkpoint: a prepared one's own, or one made here for a folder of `save_pretrained`.

    Args:
        path: Manifest, or a folder with or without one.
        option: Option that names it, for errors.
        folder: New folder for links to the checkpoint's files and a manifest.

    Raises:
        UserError: neither, or its configuration is not that of a model that can be run.
    """
    manifest = path / MANIFEST if path.is_dir() else path
    if manifest.is_file() and manifest.name == MANIFEST:
        return manifest
    if not path.is_dir():
        raise UserError(f"{option} {path}: neither a folder nor a {MANIFEST}")
    require_no_adapter(path)
    for needed in ("config.json", "tokenizer.json"):
        if not (path / needed).is_file():
            raise UserError(
                f"{option} {path}: no {needed}; name a folder that save_pretrained wrote, of the model and of"
                " its fast tokenizer"
            )
    require_files(path)
    files = sorted(file for file in path.iterdir() if file.is_file())
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file.resolve())
    hashes = {file.name: sha256_file(file) for file in files}
    # The files lie where they are and are not checked again.
    with readable(f"{option} {path}: config.json"):
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        parts_of(config)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config)
    facts = {
        "layers": config.num_hidden_layers,
        "parameters": empty.num_parameters(),
        "vocabulary": config.vocab_size,
        "prompt_start": start_as_text(read_tokenizer(path, local_files_only=True)),
    }
    return _manifest(folder, {"folder": str(path)}, facts, sha256_text(canonical_json(hashes)))


def drafter(draft: str, context_weight: float, folder: Path) -> tuple[DraftSpec | None, dict[str, Path]]:
    """The drafter that ``--draft`` names, and its artefact.

    Args:
        draft: ``none``, ``lookup``, or the path of a checkpoint or of an artefact that drafts.
        context_weight: Weight of the live context for n-grams.
        folder: New folder for a checkpoint's links.

    Raises:
        UserError: the path is none of these.
    """
    if draft == "none":
        return None, {}
    if draft == "lookup":
        return PromptLookup(), {}
    if not context_weight >= 0:
        raise UserError(f"--context-weight {context_weight}: a weight is 0 or more")
    path = checkpoint(Path(draft), "--draft", folder)
    module = read_contract(path, Manifest).module
    if module in ("ablations.lm.prepare_model", BY_HAND):
        return NeuralDraftSpec(), {"draft": path}
    if module == "ablations.dynatree.fit_ngram":
        return NgramDraftSpec(context_weight=context_weight), {"ngram": path}
    if module == "ablations.dynatree.distil":
        return DistilledDraftSpec(), {"distilled": path}
    raise UserError(
        f"--draft {draft}: what {module} makes is no draft; name a checkpoint, n-grams or a draft"
    )


def prompts(texts: list[str], folder: Path) -> Path:
    """Manifest of a corpus of these prompts, in their order; an empty one is refused.

    Raises:
        UserError: no prompt, one without text, or one that UTF-8 cannot write.
    """
    if not texts or not all(text.strip() for text in texts):
        raise UserError("--prompt, --prompts: an empty prompt has no next token; give it some text")
    for number, text in enumerate(texts, start=1):
        if text != text.encode(errors="replace").decode():
            raise UserError(f"--prompt, --prompts: prompt {number} is no Unicode text; correct it")
    documents = [
        Document(id=f"prompt-{number}", kind=BY_HAND, split="heldout", text=text)
        for number, text in enumerate(texts, start=1)
    ]
    text = "".join(document.model_dump_json() + "\n" for document in documents)
    folder.mkdir()
    write_text(folder / DOCUMENTS, text)
    return _manifest(folder, {}, {}, sha256_text(text))


def read_prompt_file(path: Path) -> list[str]:
    """Prompts of a file: one a line; of a ``.jsonl`` or ``.ndjson`` file, `prompt` or `text` of each record.

    Raises:
        UserError: no such file, not text in UTF-8, records of another format, or a record without a prompt.
    """
    suffix = path.suffix.lower()
    if suffix in DATA:
        raise UserError(f"--prompts {path}: holds records, not lines; save them as JSON lines (.jsonl)")
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except FileNotFoundError:
        raise UserError(f"--prompts {path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"--prompts {path}: not UTF-8; save it as UTF-8") from None
    if any("\0" in line for line in lines):
        raise UserError(f"--prompts {path}: not UTF-8; save it as UTF-8")
    if suffix not in JSON_LINES:
        return lines
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            prompt = record["prompt"] if "prompt" in record else record["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            prompt = None
        if not isinstance(prompt, str):
            raise UserError(
                f"--prompts {path}: record {number} is no JSON object with text under the key 'prompt' or"
                " 'text'; mend the file"
            )
        found.append(prompt)
    return found


def _manifest(folder: Path, spec: dict, facts: dict, digest: str) -> Path:
    path = folder / MANIFEST
    digests = Digests(job=digest, spec=digest, code="", inputs={}, pins={})
    made = Manifest(module=BY_HAND, spec=spec, files={}, facts=facts, seconds=0.0, digests=digests)
    write_text(path, made.model_dump_json() + "\n")
    return path
