"""Which tasks are asked for, and whether they can be scored: found out before the model runs."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from datasets.exceptions import DatasetsError
from lm_eval import simple_evaluate
from lm_eval.models.utils_hf import stop_sequences_criteria
from lm_eval.tasks import TaskManager
from torch import Tensor

from ablations.sdtp.harness.adapter import PrunedLM, require_greedy
from ablations.study.cli import out_of_memory
from ablations.study.errors import UserError

_LOG = logging.getLogger("lm_eval")
_AS_ASKED = ("Overwriting default num_fewshot", "num_fewshot > 0 but fewshot_split is None")
_NO_CHOICE = "Label index was not in within range"
_TOO_FEW = ("Sample larger than population", "fewshot samples", "no documents available for sampling")


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


class Rehearsal(PrunedLM):
    """Takes every request that a task makes and answers it without running the model."""

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Some log-likelihood for each.

        Raises:
            UserError: a continuation is longer than the model allows.
        """
        for _, context, continuation in requests:
            self._cut(context, continuation)
        return [(-1.0, False)] * len(requests)

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: object
    ) -> Tensor:
        """Some text: the end of the context once more.

        Raises:
            UserError: the task asks for something other than greedy decoding.
        """
        require_greedy(generation_kwargs)
        stop_sequences_criteria(self.tokenizer, stop, context.shape[1], 1)
        return torch.cat([context, context[:, -4:]], dim=1)


def task_manager(request: Request) -> TaskManager:
    """What knows the tasks.

    Raises:
        UserError: an option has no meaning, or a task is not known.
    """
    # What it warns of is how it is called here: a model that is there already, one prompt at a time.
    _LOG.setLevel(logging.ERROR)
    if request.limit is not None and request.limit < 1:
        raise UserError(f"--limit: {request.limit} items; ask for at least 1")
    if request.fewshot is not None and request.fewshot < 0:
        raise UserError(f"--fewshot: {request.fewshot} worked examples; ask for 0 or more")
    if request.include_path is not None and not request.include_path.is_dir():
        raise UserError(f"--include-path: {request.include_path} is no folder")
    with _listening(logging.DEBUG) as heard:
        manager = TaskManager(include_path=request.include_path)
    for name in request.tasks:
        if name not in manager.all_tasks:
            unread = [
                f"; {shorten(record.getMessage(), 300)}"
                for record in heard
                if record.msg.startswith("Skip ") and request.include_path in Path(record.args[0]).parents
            ]
            raise UserError(
                f"--tasks: lm-eval knows no task '{name}'; `lm-eval ls tasks` lists them,"
                f" --include-path adds your own{''.join(unread)}"
            )
    return manager


def evaluate(
    model: PrunedLM, names: list[str], manager: TaskManager, request: Request, resamples: int = 100_000
) -> dict[str, Any]:
    """Score tasks; returns what `lm_eval.simple_evaluate` does.

    Args:
        model: What is scored.
        names: Tasks or groups.
        manager: Knows them.
        request: How.
        resamples: For standard errors that the harness estimates by a bootstrap.
    """
    return simple_evaluate(
        model,
        tasks=names,
        num_fewshot=request.fewshot,
        limit=request.limit,
        bootstrap_iters=resamples,
        apply_chat_template=request.chat_template,
        task_manager=manager,
        log_samples=False,
    )


def rehearse(model: Rehearsal, manager: TaskManager, request: Request) -> None:
    """Go through all tasks without running the model: data, templates, examples, requests and metrics.

    What the harness warns of and a user should know is printed, once each.

    Raises:
        UserError: a task cannot be scored as asked for, or would be scored wrongly.
    """
    for name in request.tasks:
        with _listening(logging.WARNING) as heard:
            try:
                found = evaluate(model, [name], manager, request, resamples=0)
            except UserError:
                raise
            except Exception as error:
                if out_of_memory(error):
                    raise
                # A task is a program of the user's or the harness's: what it raises is about the task.
                raise UserError(_why(name, request, error)) from error
        _require_scores(name, found)
        _require_examples(found["configs"], request)
        _tell(name, found, heard)


def _why(name: str, request: Request, error: Exception) -> str:
    said = shorten(f"{type(error).__name__}: {error}", 300)
    if request.fewshot and any(text in said for text in _TOO_FEW):
        return f"--fewshot: {request.fewshot} worked examples are more than '{name}' has; lower it"
    if isinstance(error, OSError | DatasetsError):
        cause = shorten(str(error.__cause__ or error), 300)
        return f"--tasks: data of '{name}' cannot be had ({cause}); check its path, or the network"
    return (
        f"--tasks: '{name}' cannot be scored ({said}); correct its definition (data, splits, columns,"
        " templates, metrics), or choose another task"
    )


def _require_scores(name: str, found: dict[str, Any]) -> None:
    """Check that a task gives every score that its definition names."""
    if not found["configs"]:
        raise UserError(f"--tasks: '{name}' has no item to score; correct its definition")
    for task, config in found["configs"].items():
        scored = {key.partition(",")[0] for key in found["results"][task]}
        for entry in config.get("metric_list") or ():
            metric = entry.get("metric")
            if isinstance(metric, str) and metric.isidentifier() and metric not in scored:
                raise UserError(
                    f"--tasks: '{task}' has a metric '{metric}' that it gives no score for; correct its"
                    " metric_list"
                )


def _require_examples(configs: dict[str, Any], request: Request) -> None:
    """Check that prompts have the worked examples that were asked for, and that none is the item itself."""
    for task, config in configs.items():
        if request.fewshot and config.get("num_fewshot") != request.fewshot:
            raise UserError(
                f"--fewshot: '{task}' takes no worked examples ('num_fewshot: 0' in its definition); leave"
                " the option out, or run this task apart"
            )
        test, validation = config.get("test_split"), config.get("validation_split")
        examples = config.get("fewshot_config") or {}
        named = examples.get("split")
        drawn = named or config.get("training_split") or validation or test
        # The harness leaves out the item itself only where the two splits that it compares are the same.
        own = drawn == (test or validation) and named != test and (named or not examples.get("samples"))
        if own and config.get("num_fewshot"):
            message = (
                f"worked examples of '{task}' are drawn from the items that are scored, so a prompt may hold"
                " its own answer; set 'fewshot_split' and 'test_split' in the task's definition"
            )
            if request.fewshot:
                raise UserError(f"--fewshot: {message}, or leave the option out")
            print(f"note: {message}", file=sys.stderr, flush=True)


def _tell(name: str, found: dict[str, Any], heard: list[logging.LogRecord]) -> None:
    """Say what the harness warned of while it scored a task; end where the scores would mean nothing."""
    times = Counter((record.pathname, record.lineno) for record in heard)
    first = {(record.pathname, record.lineno): record.getMessage() for record in reversed(heard)}
    items = sum(counts["effective"] for counts in found["n-samples"].values())
    for place, message in first.items():
        if _NO_CHOICE in message and times[place] >= items:
            raise UserError(
                f"--tasks: the answer of no item of '{name}' is one of its choices; correct doc_to_target"
            )
        if not any(text in message for text in _AS_ASKED):
            said = f"note: lm-eval on '{name}' ({times[place]} times): {shorten(message, 300)}"
            print(said, file=sys.stderr, flush=True)


@contextmanager
def _listening(level: int) -> Iterator[list[logging.LogRecord]]:
    """Collect what the harness logs from a level on, instead of printing it."""
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append
    before, propagate = _LOG.level, _LOG.propagate
    _LOG.addHandler(handler)
    _LOG.setLevel(level)
    _LOG.propagate = False
    try:
        yield heard
    finally:
        _LOG.removeHandler(handler)
        _LOG.setLevel(before)
        _LOG.propagate = propagate
