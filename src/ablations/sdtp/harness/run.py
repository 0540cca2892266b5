"""Running tasks on an arm and on the unpruned model."""

from importlib.metadata import version
from typing import Any

from lm_eval.tasks import TaskManager

from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.core.job import Run
from ablations.core.record import digests_of, environment_of
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.device import configure, device_name
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import Arms
from ablations.sdtp.harness.adapter import PrunedLM, unpruned_arm
from ablations.sdtp.harness.scores import Downstream, scores_of
from ablations.sdtp.harness.tasks import Rehearsal, TaskRequest, rehearse, score_tasks, task_manager
from ablations.specs.sdtp.evaluate import PrunedSeries


def run_tasks(run: Run[PrunedSeries], request: TaskRequest) -> Downstream:
    """Score the arm of an experiment and the unpruned model on the same tasks; write and return the scores.

    Raises:
        UserError: an input is missing, corrupt or made for another spec, a task is unknown or cannot be
            loaded, or the arm cannot run on it.
    """
    spec = run.spec
    if spec.positions == "stale":
        raise UserError("positions: 'stale' is made to crash; choose another experiment")
    if spec.importance == "oracle":
        raise UserError(
            "importance: 'oracle' needs the text that follows a context, which tasks do not give; choose"
            " another experiment"
        )
    tasks = task_manager(request)
    device = configure(spec.compute)
    lm = load_model(run.job.path("model"), spec.compute, device)
    tokenizer = load_tokenizer(run.job.path("model"))
    if request.chat_template and tokenizer.chat_template is None:
        raise UserError("--chat-template: the model's tokenizer has none; leave the option out")
    arm = Arms(lm).load(run)
    rehearse(Rehearsal(arm, tokenizer), tasks, request)
    models = PrunedLM(arm, tokenizer, _min_context(spec)), PrunedLM(unpruned_arm(lm), tokenizer)
    layout = pack_linears(lm)
    pruned, reference = (_evaluate(model, tasks, request) for model in models)
    result = Downstream(
        spec=spec,
        scores=tuple(scores_of(pruned, reference)),
        fewshot=request.fewshot,
        limit=request.limit,
        chat_template=request.chat_template,
        lm_eval=version("lm-eval"),
        weight_layout=layout,
        environment=environment_of(
            run, device_name(device), device.type, spec.compute.threads, spec.compute.dtype
        ),
        digests=digests_of(run),
    )
    write_text(run.out, result.model_dump_json(indent=1) + "\n")
    return result


def _min_context(spec: PrunedSeries) -> int:
    """Fewest tokens of a context that the importance can score."""
    if spec.saliency is None:
        return 0
    # One token before the tokens whose loss the saliency is of.
    return 1 + (spec.saliency.loss_tokens or 1)


def _evaluate(model: PrunedLM, tasks: TaskManager, request: TaskRequest) -> dict[str, Any]:
    try:
        return score_tasks(model, request.tasks, tasks, request)
    except OSError as error:
        # The rehearsal could still read the data.
        names = ", ".join(request.tasks)
        raise UserError(
            f"--tasks: data of {names} are gone ({error}); check the path, or the network"
        ) from error
