"""A checkpoint by hub name or from a local folder, through `transformers`."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ablations.lm.architecture import parts_of
from ablations.lm.loading import load_weights, readable, require_no_adapter
from ablations.study.contracts.lm import FILL_IN, PretrainedModel
from ablations.study.errors import UserError
from ablations.study.userfiles import user_path

ADVICE = (
    "correct the model's key 'name' (a local folder, or a hub name, with network access and, for a"
    " gated model, a token in HF_TOKEN)"
)


def load_pretrained_model(source: PretrainedModel) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint in its own data type, its configuration first: what cannot be run is not fetched.

    Raises:
        UserError: there is no such model, no revision was chosen, it cannot be fetched or run, a file of it
            is corrupt, its tensors are not the model's, or it needs code of its own (which is never run).
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
    keywords = {"revision": source.revision, "local_files_only": local}
    with readable(f"'{source.name}'", ADVICE):
        require_no_adapter(name, **keywords)
        keywords |= {"trust_remote_code": False}
        parts_of(AutoConfig.from_pretrained(name, **keywords))
        tokenizer = AutoTokenizer.from_pretrained(name, **keywords)
    return load_weights(name, ADVICE, dtype="auto", **keywords), tokenizer


def _check_weights(folder: Path) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                continue
        except SafetensorError as error:
            raise UserError(f"{path}: corrupt ({error}); copy the checkpoint again") from None
