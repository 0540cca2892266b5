"""Checkpoints, drafts and prompts of a command line, as input artefacts of a decoding job."""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ablations.core.artefact import Manifest
from ablations.core.errors import UserError
from ablations.core.files import canonical_json, sha256_file, sha256_text, write_text
from ablations.core.record import Digests, read_contract
from ablations.lm.architecture import architecture_of
from ablations.lm.document import DOCUMENTS, Document
from ablations.lm.loading import loading_errors, require_files, require_no_adapter
from ablations.lm.texts.local import DATA, JSON_LINES
from ablations.lm.tokenizer import prefix_text, read_tokenizer
from ablations.specs.dynatree.arm import (
    DistilledDraftSpec,
    DraftSpec,
    NeuralDraftSpec,
    NgramDraftSpec,
    PromptLookup,
)

MANIFEST = "manifest.json"
BY_HAND = "by hand"


def checkpoint_manifest(path: Path, option: str, folder: Path) -> Path:
    """Manifest of a checkpoint; for a folder of `save_pretrained` a new one is written.

    Args:
        path: Manifest of a prepared checkpoint, its folder, or a folder of `save_pretrained`.
        option: Option of the command line, for errors.
        folder: New folder for the new manifest and links to the checkpoint's files.

    Raises:
        UserError: the path is none of these, or the model cannot run.
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
    # The files stay in their folder; the new manifest lists none, so they are not checked again.
    with loading_errors(f"{option} {path}: config.json"):
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        architecture_of(config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    facts = {
        "layers": config.num_hidden_layers,
        "parameters": model.num_parameters(),
        "vocabulary": config.vocab_size,
        "prompt_start": prefix_text(read_tokenizer(path, local_files_only=True)),
    }
    return _write_manifest(folder, {"folder": str(path)}, facts, sha256_text(canonical_json(hashes)))


def drafter_input(
    draft: str, context_weight: float, folder: Path
) -> tuple[DraftSpec | None, dict[str, Path]]:
    """Spec of the drafter that ``--draft`` names, and the manifest of its artefact by the input's name.

    Args:
        draft: ``none``, ``lookup``, or the path of a checkpoint, n-gram counts or a distilled draft.
        context_weight: Weight of the live context for n-grams.
        folder: New folder for the links to a checkpoint's files.

    Raises:
        UserError: the path is none of these, or the weight is negative.
    """
    if draft == "none":
        return None, {}
    if draft == "lookup":
        return PromptLookup(), {}
    if not context_weight >= 0:
        raise UserError(f"--context-weight {context_weight}: a weight is 0 or more")
    path = checkpoint_manifest(Path(draft), "--draft", folder)
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


def prompts_manifest(texts: list[str], folder: Path) -> Path:
    """Write the prompts as a corpus, in their order; returns its manifest.

    Raises:
        UserError: there is no prompt, a prompt has no text, or a prompt cannot be encoded in UTF-8.
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
    return _write_manifest(folder, {}, {}, sha256_text(text))


def read_prompt_file(path: Path) -> list[str]:
    """Prompts of a file: its lines, or `prompt` or `text` of each record of a ``.jsonl`` or ``.ndjson`` file.

    Raises:
        UserError: the file does not exist, is not text in UTF-8, or holds records of another format or
            without a prompt.
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
    prompts = []
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
        prompts.append(prompt)
    return prompts


def _write_manifest(folder: Path, spec: dict, facts: dict, digest: str) -> Path:
    path = folder / MANIFEST
    digests = Digests(job=digest, spec=digest, code="", inputs={}, pins={})
    manifest = Manifest(module=BY_HAND, spec=spec, files={}, facts=facts, seconds=0.0, digests=digests)
    write_text(path, manifest.model_dump_json() + "\n")
    return path
