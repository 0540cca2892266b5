"""Running tasks on an arm and on the unpruned model."""

import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.device import configure, device_name
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import load_arm
from ablations.sdtp.harness.adapter import PrunedLM, unpruned
from ablations.sdtp.harness.scores import Downstream, scores_of
from ablations.study.contracts.sdtp import EvaluateSpec
from ablations.study.errors import UserError
from ablations.study.files import write_text
from ablations.study.job import Run
from ablations.study.record_io import digests_of, environment_of


@dataclass(frozen=True)
class Request:
    """Which tasks, and how.

    Attributes:
        tasks: Names of tasks or groups.
        include_path: Folder with further task definitions.
        limit: Items of each task; None takes all.
        fewshot: Worked examples per prompt; None leaves it to the task.
        chat_template: Whether prompts go through the model's chat template.
    """

    tasks: list[str]
    include_path: Path | None = None
    limit: int | None = None
    fewshot: int | None = None
    chat_template: bool = False


def run_tasks(run: Run[EvaluateSpec], request: Request) -> Downstream:
    """Score the arm of an experiment and its unpruned model on the same tasks; write and return both.

    Raises:
        UserError: an input is missing, corrupt or made for something else, a task is not known or cannot be
            had, or the arm cannot be run on it.
    """
    spec = run.spec
    if spec.positions == "stale":
        raise UserError("positions: 'stale' is made to crash; choose another experiment")
    tasks = _task_manager(request)
    device = configure(spec.compute)
    lm = load_model(run.job.path("model"), spec.compute, device)
    tokenizer = load_tokenizer(run.job.path("model"))
    if request.chat_template and tokenizer.chat_template is None:
        raise UserError("--chat-template: the model's tokenizer has none; leave the option out")
    arm = load_arm(run, lm)
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


def _task_manager(request: Request) -> TaskManager:
    # What it warns of is how it is called here: a model that is there already, one prompt at a time.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if request.include_path is not None and not request.include_path.is_dir():
        raise UserError(f"--include-path: {request.include_path} is no folder")
    manager = TaskManager(include_path=request.include_path)
    for name in request.tasks:
        if name not in manager.all_tasks:
            raise UserError(
                f"--tasks: lm-eval knows no task '{name}'; `lm-eval ls tasks` lists them,"
                " --include-path adds your own"
            )
    return manager


def _evaluate(model: PrunedLM, manager: TaskManager, request: Request) -> dict[str, Any]:
    try:
        return simple_evaluate(
            model,
            tasks=request.tasks,
            num_fewshot=request.fewshot,
            limit=request.limit,
            apply_chat_template=request.chat_template,
            task_manager=manager,
            log_samples=False,
        )
    except OSError as error:
        names = ", ".join(request.tasks)
        raise UserError(
            f"--tasks: data of {names} cannot be had ({error}); check its path, or the network"
        ) from error
