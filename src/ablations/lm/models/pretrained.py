"""A checkpoint by hub name or from a local folder, through `transformers`."""

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from ablations.core.errors import UserError
from ablations.lm.architecture import architecture_of
from ablations.lm.loading import load_weights, loading_errors, require_files, require_no_adapter
from ablations.lm.tokenizer import read_tokenizer
from ablations.specs.lm import FILL_IN, PretrainedModel
from ablations.specs.userfiles import user_path

TOKENIZER = "tokenizer.json"
ADVICE = (
    "correct the model's key 'name' (a local folder, or a hub name, with network access and, for a"
    " gated model, a token in HF_TOKEN)"
)


def load_pretrained_model(source: PretrainedModel) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a checkpoint in its own data type.

    The configuration is read first, so that the weights of a model that cannot run are not fetched.

    Raises:
        UserError: there is no such model, no revision was chosen, the model cannot be fetched or run, one of
            its files is corrupt, its tensors are not those of its configuration, or it needs code from the
            checkpoint, which is never run.
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
        require_files(folder)
    keywords = {"revision": source.revision, "local_files_only": local}
    with loading_errors(f"'{source.name}'", ADVICE):
        require_no_adapter(name, **keywords)
        architecture_of(AutoConfig.from_pretrained(name, trust_remote_code=False, **keywords))
        if not cached_file(name, TOKENIZER, _raise_exceptions_for_missing_entries=False, **keywords):
            raise UserError(
                f"'{source.name}': no {TOKENIZER}, the fast form of a tokenizer; where sentencepiece is"
                " installed, AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER) makes it"
            )
    tokenizer = read_tokenizer(name, ADVICE, **keywords)
    model = load_weights(name, ADVICE, dtype="auto", trust_remote_code=False, **keywords)
    return model, tokenizer
