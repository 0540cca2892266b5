"""Loading of checkpoints with `transformers`; tensors that it would invent or ignore are an error."""

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

from ablations.core.errors import UserError, out_of_memory

LFS = b"version https://git-lfs.github.com/spec/"
ADVICE = "copy the checkpoint again, or correct the file that this names"
_NAMES_LISTED = 3
"""Most tensor names that an error lists for each problem."""


def load_weights(
    path: str | Path, advice: str = ADVICE, name: str | None = None, **keywords: Any
) -> PreTrainedModel:
    """Load a causal LM whose tensors are exactly those of the checkpoint.

    `transformers` initialises a tensor at random if the checkpoint lacks it, and ignores a tensor if the
    model has no place for it. Its own rules exempt a tied head and buffers of older versions.

    Args:
        path: Folder or hub name.
        advice: What to do if the files cannot be read, for the error.
        name: Name of the checkpoint in errors; None is `path`.
        keywords: Keywords of `AutoModelForCausalLM.from_pretrained`.

    Raises:
        UserError: tensors are missing, unexpected or of another shape, or the files cannot be read.
    """
    name = name or str(path)
    with loading_errors(f"'{name}'", advice), _without_load_report():
        # With sizes ignored, tensors of another shape are reported with the others instead of raised.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, ignore_mismatched_sizes=True, **keywords
        )
    model, report = loaded
    shapes = {key: (tuple(actual), tuple(expected)) for key, actual, expected in report["mismatched_keys"]}
    reshaped = [f"{key} {actual} for {expected}" for key, (actual, expected) in shapes.items()]
    problems = [
        tensor_problem("missing", report["missing_keys"] - shapes.keys()),
        tensor_problem("without a place in the model", report["unexpected_keys"]),
        tensor_problem("of another shape", reshaped),
    ]
    if any(problems):
        raise tensor_mismatch(name, problems)
    return model


def tensor_problem(problem: str, names: Iterable[str]) -> str:
    """Number of tensors with a problem and the names of the first, for an error; empty without tensors."""
    names = sorted(names)
    if not names:
        return ""
    more = ", …" if len(names) > _NAMES_LISTED else ""
    return f"{len(names)} {problem} ({', '.join(names[:_NAMES_LISTED])}{more})"


def tensor_mismatch(name: str, problems: Iterable[str]) -> UserError:
    """Error for a checkpoint whose tensors are not those of its model.

    Args:
        name: Name of the checkpoint.
        problems: Results of `tensor_problem`.
    """
    return UserError(
        f"{name}: its tensors are not those of the model that its configuration describes:"
        f" {', '.join(filter(None, problems))}; save the model itself again with save_pretrained (not one"
        " that is compiled, wrapped or bears an adapter), or correct its config.json"
    )


def require_no_adapter(name: str | Path, **keywords: Any) -> None:
    """Check that a checkpoint has no adapter, which would not be applied.

    Args:
        name: Folder or hub name.
        keywords: `revision` and `local_files_only`.

    Raises:
        UserError: the checkpoint has an ``adapter_config.json``.
    """
    if find_adapter_config_file(str(name), **keywords) is not None:
        raise UserError(
            f"{name}: adapter_config.json describes an adapter, which would not be applied; merge it into its"
            " base model (peft: merge_and_unload), save that with its tokenizer, and name the new folder"
        )


def require_files(folder: Path) -> None:
    """Check the files of a checkpoint, as far as is possible without reading all of them.

    Args:
        folder: The checkpoint.

    Raises:
        UserError: a file is a pointer whose content Git LFS has not fetched, or weights are corrupt.
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
def loading_errors(name: str, advice: str = ADVICE) -> Iterator[None]:
    """Turn an exception that a library raises on a checkpoint's files into a `UserError`.

    Out-of-memory errors pass through: they say nothing about the files.

    Args:
        name: What is being read, for the error.
        advice: What to do about it, for the error.
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
def _without_load_report() -> Iterator[None]:
    """Keep `transformers` from printing its load report, which `load_weights` turns into an error.

    Its other warnings are printed.
    """

    def no_load_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(no_load_report)
    try:
        yield
    finally:
        logger.removeFilter(no_load_report)
