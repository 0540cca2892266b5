"""Job: make one checkpoint folder (safetensors, configuration, tokenizer) with its manifest."""

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ablations.lm.models.pretrained import load_pretrained_model
from ablations.lm.models.random import make_random_model
from ablations.lm.models.wheel import load_wheel_model
from ablations.lm.tokenizer import require_rows, start_as_text
from ablations.study.artefact import new_artefact
from ablations.study.contracts.lm import ModelSource, PrepareModelSpec, PretrainedModel, WheelModel
from ablations.study.errors import UserError
from ablations.study.job import Run, main
from ablations.study.userfiles import require_source_unchanged


def prepare_model(run: Run[PrepareModelSpec]) -> None:
    """Load the checkpoint once, check it and save it with its tokenizer.

    Raises:
        UserError: it cannot be had, was edited since the job was planned, or is not what the configuration
            says.
    """
    source = run.spec.model
    model, tokenizer = _load(source)
    require_source_unchanged(source, run.job.input_digests)
    layers = model.config.num_hidden_layers
    if layers != source.layers:
        raise UserError(
            f"'layers' is {source.layers} but the checkpoint has {layers} layers; correct the model's key"
        )
    tokenizer = require_rows(tokenizer, model.config.vocab_size, run.out.parent)
    facts = {
        "layers": layers,
        "hidden_size": model.config.hidden_size,
        "parameters": model.num_parameters(),
        "vocabulary": model.config.vocab_size,
        "prompt_start": start_as_text(tokenizer),
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
