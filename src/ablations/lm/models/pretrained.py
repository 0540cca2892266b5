"""A checkpoint by hub name or from a local folder, through `transformers`."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ablations.study.contracts.lm import PretrainedModel
from ablations.study.errors import UserError


def load_pretrained_model(source: PretrainedModel) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint in its own data type.

    Raises:
        UserError: there is no such model, it cannot be fetched, a file of it is corrupt, or it needs code of
            its own (which is never run).
    """
    folder = Path(source.name)
    local = folder.is_dir()
    if local:
        _check_weights(folder)
    keywords = {"revision": source.revision, "trust_remote_code": False, "local_files_only": local}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.name, **keywords)
        model = AutoModelForCausalLM.from_pretrained(source.name, dtype="auto", **keywords)
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"'{source.name}' cannot be loaded: {reason[:300]};"
            " correct the model's key 'name' (a local folder, or a hub name and network access)"
        ) from None
    return model, tokenizer


def _check_weights(folder: Path) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                continue
        except SafetensorError as error:
            raise UserError(f"{path}: corrupt ({error}); copy the checkpoint again") from None
