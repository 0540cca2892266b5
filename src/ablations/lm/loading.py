"""Checkpoints as `transformers` loads them: what it would make up or leave out is an error, of one line."""

import logging
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from ablations.study.cli import out_of_memory
from ablations.study.errors import UserError

LFS = b"version https://git-lfs.github.com/spec/"
ADVICE = "copy the checkpoint again, or correct the file that this names"
_NAMED = 3
"""Tensors that an error names of each kind."""


def load_weights(
    path: str | Path, advice: str = ADVICE, name: str | None = None, **keywords: Any
) -> PreTrainedModel:
    """Load a causal LM whose tensors are exactly those of the checkpoint.

    `transformers` gives random numbers to a tensor that the checkpoint lacks, and leaves out one that the
    model has no place for. Its own rules say what is none: a tied head, buffers of older versions.

    Args:
        path: Folder or hub name.
        advice: What to do where the files cannot be read.
        name: What errors call it, if not by `path`.
        keywords: Of `AutoModelForCausalLM.from_pretrained`.

    Raises:
        UserError: tensors are missing, unexpected or of another shape, or the files cannot be read.
    """
    name = name or str(path)
    with readable(f"'{name}'", advice), _own_report():
        # With sizes ignored, another shape is reported like the others instead of raised.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, ignore_mismatched_sizes=True, **keywords
        )
    model, report = loaded
    shapes = {key: (tuple(found), tuple(expected)) for key, found, expected in report["mismatched_keys"]}
    problems = [
        some("missing", report["missing_keys"] - shapes.keys()),
        some("without a place in the model", report["unexpected_keys"]),
        some("of another shape", [f"{key} {found} for {wanted}" for key, (found, wanted) in shapes.items()]),
    ]
    if any(problems):
        raise unfit(name, problems)
    return model


def some(what: str, names: Iterable[str]) -> str:
    """How many tensors there are of a kind, with the names of some; empty for none."""
    found = sorted(names)
    if not found:
        return ""
    more = ", …" if len(found) > _NAMED else ""
    return f"{len(found)} {what} ({', '.join(found[:_NAMED])}{more})"


def unfit(name: str, problems: Iterable[str]) -> UserError:
    """The error of a checkpoint whose tensors are not its model's.

    Args:
        name: The checkpoint.
        problems: What `some` says of each kind.
    """
    return UserError(
        f"{name}: its tensors are not those of the model that its configuration describes:"
        f" {', '.join(filter(None, problems))}; save the model itself again with save_pretrained (not one"
        " that is compiled, wrapped or bears an adapter), or correct its config.json"
    )


def require_no_adapter(name: str | Path, **keywords: Any) -> None:
    """Check that no adapter lies in a checkpoint: it would be left out, or its base model be looked up.

    Args:
        name: Folder or hub name.
        keywords: `revision` and `local_files_only`.

    Raises:
        UserError: there is an adapter.
    """
    if find_adapter_config_file(str(name), **keywords) is not None:
        raise UserError(
            f"{name}: adapter_config.json describes an adapter, which would not be applied; merge it into its"
            " base model (peft: merge_and_unload), save that with its tokenizer, and name the new folder"
        )


def require_files(folder: Path) -> None:
    """Check that the files of a checkpoint are there and whole, as far as a quick look tells.

    Args:
        folder: The checkpoint.

    Raises:
        UserError: a file stands for another one that Git LFS has not fetched, or weights are corrupt.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and _begins_with(path, LFS):
            raise UserError(
                f"{path}: a pointer of Git LFS, not the file itself; run 'git lfs pull' in the folder"
            )
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    for path in weights:
        try:
            if path.suffix == ".bin":
                torch.load(path, map_location="meta", mmap=zipfile.is_zipfile(path), weights_only=True)
            else:
                with safe_open(path, framework="pt"):
                    continue
        except Exception as error:
            if out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{path}: corrupt ({reason}); copy the checkpoint again") from None


def _begins_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


@contextmanager
def readable(name: str, advice: str = ADVICE) -> Iterator[None]:
    """Turn whatever a library raises at the files of a checkpoint into one line.

    Args:
        name: What is read, for the error.
        advice: What to do about it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"{name} cannot be loaded: {kind}{reason[:300]}; {advice}") from None


@contextmanager
def _own_report() -> Iterator[None]:
    """Keep the library from printing as a table what becomes an error here; its other warnings are heard."""

    def other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
