"""A checkpoint by hub name or from a local folder, through `transformers`."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ablations.lm.architecture import parts_of
from ablations.study.contracts.lm import FILL_IN, PretrainedModel
from ablations.study.errors import UserError
from ablations.study.userfiles import user_path


def load_pretrained_model(source: PretrainedModel) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint in its own data type, its configuration first: what cannot be run is not fetched.

    Raises:
        UserError: there is no such model, no revision was chosen, it cannot be fetched or run, a file of it
            is corrupt, or it needs code of its own (which is never run).
    """
    if source.revision == FILL_IN:
        raise UserError(
            f"'{source.name}': put the commit that you want into the model's key 'revision'"
            f" (https://huggingface.co/{source.name}/commits/main), or null for the newest"
        )
    folder = user_path(source.name)
    local = folder.is_dir()
    name = str(folder) if local else source.name
    if local:
        _check_weights(folder)
    keywords = {"revision": source.revision, "trust_remote_code": False, "local_files_only": local}
    try:
        parts_of(AutoConfig.from_pretrained(name, **keywords))
        tokenizer = AutoTokenizer.from_pretrained(name, **keywords)
        model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", **keywords)
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"'{source.name}' cannot be loaded: {reason[:300]};"
            " correct the model's key 'name' (a local folder, or a hub name, with network access and, for a"
            " gated model, a token in HF_TOKEN)"
        ) from None
    return model, tokenizer


def _check_weights(folder: Path) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                continue
        except SafetensorError as error:
            raise UserError(f"{path}: corrupt ({error}); copy the checkpoint again") from None
