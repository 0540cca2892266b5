"""Running tasks on an arm and on the unpruned model."""

from importlib.metadata import version
from typing import Any

from lm_eval.tasks import TaskManager

from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.device import configure, device_name
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import load_arm
from ablations.sdtp.harness.adapter import PrunedLM, unpruned
from ablations.sdtp.harness.scores import Downstream, scores_of
from ablations.sdtp.harness.tasks import Rehearsal, Request, evaluate, rehearse, task_manager
from ablations.study.contracts.sdtp import EvaluateSpec
from ablations.study.errors import UserError
from ablations.study.files import write_text
from ablations.study.job import Run
from ablations.study.record_io import digests_of, environment_of


def run_tasks(run: Run[EvaluateSpec], request: Request) -> Downstream:
    """Score the arm of an experiment and its unpruned model on the same tasks; write and return both.

    Raises:
        UserError: an input is missing, corrupt or made for something else, a task is not known or cannot be
            had, or the arm cannot be run on it.
    """
    spec = run.spec
    if spec.positions == "stale":
        raise UserError("positions: 'stale' is made to crash; choose another experiment")
    tasks = task_manager(request)
    device = configure(spec.compute)
    lm = load_model(run.job.path("model"), spec.compute, device)
    tokenizer = load_tokenizer(run.job.path("model"))
    if request.chat_template and tokenizer.chat_template is None:
        raise UserError("--chat-template: the model's tokenizer has none; leave the option out")
    arm = load_arm(run, lm)
    rehearse(Rehearsal(arm, tokenizer), tasks, request)
    models = PrunedLM(arm, tokenizer, _shortest(spec)), PrunedLM(unpruned(lm), tokenizer)
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


def _shortest(spec: EvaluateSpec) -> int:
    """Fewest tokens of a context that can be scored."""
    if spec.saliency is None:
        return 0
    # A token, and at least one that it predicts.
    return 1 + (spec.saliency.loss_tokens or 1)


def _evaluate(model: PrunedLM, tasks: TaskManager, request: Request) -> dict[str, Any]:
    try:
        return evaluate(model, request.tasks, tasks, request)
    except OSError as error:
        # It could be read a moment ago.
        names = ", ".join(request.tasks)
        raise UserError(
            f"--tasks: data of {names} are gone ({error}); check the path, or the network"
        ) from error
