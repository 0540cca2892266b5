"""Job: make one checkpoint folder (safetensors, configuration, tokenizer) with its manifest."""

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.job import Run, main
from ablations.lm.models.pretrained import load_pretrained_model
from ablations.lm.models.random import make_random_model
from ablations.lm.models.wheel import load_wheel_model
from ablations.lm.tokenizer import prefix_text, require_embedding_rows
from ablations.specs.lm import ModelSource, PrepareModelSpec, PretrainedModel, WheelModel
from ablations.specs.userfiles import require_source_unchanged


def prepare_model(run: Run[PrepareModelSpec]) -> None:
    """Load the checkpoint, check it and save it with its tokenizer.

    Raises:
        UserError: the checkpoint cannot be loaded, was edited since the job was planned, has another number
            of layers than the configuration says, or has tokens without a row in its embedding.
    """
    source = run.spec.model
    model, tokenizer = _load(source)
    require_source_unchanged(source, run.job.input_digests)
    layers = model.config.num_hidden_layers
    if layers != source.layers:
        raise UserError(
            f"'layers' is {source.layers} but the checkpoint has {layers} layers; correct the model's key"
        )
    tokenizer = require_embedding_rows(tokenizer, model.config.vocab_size, run.out.parent)
    facts = {
        "layers": layers,
        "hidden_size": model.config.hidden_size,
        "parameters": model.num_parameters(),
        "vocabulary": model.config.vocab_size,
        "prompt_start": prefix_text(tokenizer),
    }
    with new_artefact(run, facts) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _load(source: ModelSource) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    match source:
        case WheelModel():
            return load_wheel_model(source)
        case PretrainedModel():
            return load_pretrained_model(source)
        case _:
            return make_random_model(source)


if __name__ == "__main__":
    main("ablations.lm.prepare_model", PrepareModelSpec, prepare_model, "Make one checkpoint folder.")
