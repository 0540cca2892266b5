"""The requested tasks, and a rehearsal that finds tasks that cannot be scored before the model runs."""

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

from ablations.core.errors import UserError, out_of_memory
from ablations.sdtp.harness.adapter import PrunedLM, require_greedy

_LOG = logging.getLogger("lm_eval")
_EXPECTED_WARNINGS = ("Overwriting default num_fewshot", "num_fewshot > 0 but fewshot_split is None")
_LABEL_OUT_OF_RANGE = "Label index was not in within range"
_FEW_EXAMPLES = ("Sample larger than population", "fewshot samples", "no documents available for sampling")


@dataclass(frozen=True)
class TaskRequest:
    """The tasks to score, and their settings.

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
    """Answers every request of a task without running the model."""

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """A made-up log-likelihood for each request.

        Raises:
            UserError: a continuation has more tokens than the model has positions.
        """
        for _, context, continuation in requests:
            self._truncated(context, continuation)
        return [(-1.0, False)] * len(requests)

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: object
    ) -> Tensor:
        """A made-up text: the end of the context repeated.

        Raises:
            UserError: the task does not ask for greedy decoding.
        """
        require_greedy(generation_kwargs)
        stop_sequences_criteria(self.tokenizer, stop, context.shape[1], 1)
        return torch.cat([context, context[:, -4:]], dim=1)


def task_manager(request: TaskRequest) -> TaskManager:
    """The harness's index of tasks, checked to have the requested ones.

    Raises:
        UserError: an option is out of range, or a task is unknown.
    """
    # The harness warns of how it is called here: with a loaded model, one prompt at a time.
    _LOG.setLevel(logging.ERROR)
    if request.limit is not None and request.limit < 1:
        raise UserError(f"--limit: {request.limit} items; ask for at least 1")
    if request.fewshot is not None and request.fewshot < 0:
        raise UserError(f"--fewshot: {request.fewshot} worked examples; ask for 0 or more")
    if request.include_path is not None and not request.include_path.is_dir():
        raise UserError(f"--include-path: {request.include_path} is no folder")
    with _captured_log(logging.DEBUG) as records:
        manager = TaskManager(include_path=request.include_path)
    for name in request.tasks:
        if name not in manager.all_tasks:
            unread = [
                f"; {shorten(record.getMessage(), 300)}"
                for record in records
                if record.msg.startswith("Skip ") and request.include_path in Path(record.args[0]).parents
            ]
            raise UserError(
                f"--tasks: lm-eval knows no task '{name}'; `lm-eval ls tasks` lists them,"
                f" --include-path adds your own{''.join(unread)}"
            )
    return manager


def score_tasks(
    model: PrunedLM, names: list[str], manager: TaskManager, request: TaskRequest, resamples: int = 100_000
) -> dict[str, Any]:
    """Score tasks; returns the result of `lm_eval.simple_evaluate`.

    Args:
        model: Model to score.
        names: Tasks or groups.
        manager: Index of tasks.
        request: Settings of the tasks.
        resamples: Resamples of standard errors that the harness estimates by a bootstrap.
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


def rehearse(model: Rehearsal, manager: TaskManager, request: TaskRequest) -> None:
    """Go through all tasks without running the model: data, templates, examples, requests and metrics.

    Unexpected warnings of the harness are printed, once each.

    Raises:
        UserError: a task cannot be scored as requested, or would be scored wrongly.
    """
    for name in request.tasks:
        with _captured_log(logging.WARNING) as records:
            try:
                results = score_tasks(model, [name], manager, request, resamples=0)
            except UserError:
                raise
            except Exception as error:
                if out_of_memory(error):
                    raise
                # A task is a program; an exception that it raises is an error of the task.
                raise UserError(_failure(name, request, error)) from error
        _require_scores(name, results)
        _require_examples(results["configs"], request)
        _report_warnings(name, results, records)


def _failure(name: str, request: TaskRequest, error: Exception) -> str:
    """Message for an exception of a task."""
    text = shorten(f"{type(error).__name__}: {error}", 300)
    if request.fewshot and any(hint in text for hint in _FEW_EXAMPLES):
        return f"--fewshot: {request.fewshot} worked examples are more than '{name}' has; lower it"
    if isinstance(error, OSError | DatasetsError):
        cause = shorten(str(error.__cause__ or error), 300)
        return f"--tasks: data of '{name}' cannot be had ({cause}); check its path, or the network"
    return (
        f"--tasks: '{name}' cannot be scored ({text}); correct its definition (data, splits, columns,"
        " templates, metrics), or choose another task"
    )


def _require_scores(name: str, results: dict[str, Any]) -> None:
    """Check that a task gives every score that its definition names."""
    if not results["configs"]:
        raise UserError(f"--tasks: '{name}' has no item to score; correct its definition")
    for task, config in results["configs"].items():
        scored = {key.partition(",")[0] for key in results["results"][task]}
        for entry in config.get("metric_list") or ():
            metric = entry.get("metric")
            if isinstance(metric, str) and metric.isidentifier() and metric not in scored:
                raise UserError(
                    f"--tasks: '{task}' has a metric '{metric}' that it gives no score for; correct its"
                    " metric_list"
                )


def _require_examples(configs: dict[str, Any], request: TaskRequest) -> None:
    """Check that prompts have the requested worked examples, none of them the scored item itself."""
    for task, config in configs.items():
        if request.fewshot and config.get("num_fewshot") != request.fewshot:
            raise UserError(
                f"--fewshot: '{task}' takes no worked examples ('num_fewshot: 0' in its definition); leave"
                " the option out, or run this task apart"
            )
        test, validation = config.get("test_split"), config.get("validation_split")
        examples = config.get("fewshot_config") or {}
        named_split = examples.get("split")
        example_split = named_split or config.get("training_split") or validation or test
        # The harness excludes the scored item only if `test_split` and the named split are the same.
        overlaps = (
            example_split == (test or validation)
            and named_split != test
            and (named_split or not examples.get("samples"))
        )
        if overlaps and config.get("num_fewshot"):
            message = (
                f"worked examples of '{task}' are drawn from the items that are scored, so a prompt may hold"
                " its own answer; set 'fewshot_split' and 'test_split' in the task's definition"
            )
            if request.fewshot:
                raise UserError(f"--fewshot: {message}, or leave the option out")
            print(f"note: {message}", file=sys.stderr, flush=True)


def _report_warnings(name: str, results: dict[str, Any], records: list[logging.LogRecord]) -> None:
    """Print the harness's warnings about a task.

    Raises:
        UserError: a warning means that every score would be meaningless.
    """
    times = Counter((record.pathname, record.lineno) for record in records)
    first = {(record.pathname, record.lineno): record.getMessage() for record in reversed(records)}
    items = sum(counts["effective"] for counts in results["n-samples"].values())
    for place, message in first.items():
        if _LABEL_OUT_OF_RANGE in message and times[place] >= items:
            raise UserError(
                f"--tasks: the answer of no item of '{name}' is one of its choices; correct doc_to_target"
            )
        if not any(text in message for text in _EXPECTED_WARNINGS):
            note = f"note: lm-eval on '{name}' ({times[place]} times): {shorten(message, 300)}"
            print(note, file=sys.stderr, flush=True)


@contextmanager
def _captured_log(level: int) -> Iterator[list[logging.LogRecord]]:
    """Collect the harness's log records from `level` on, instead of printing them."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    previous_level, propagate = _LOG.level, _LOG.propagate
    _LOG.addHandler(handler)
    _LOG.setLevel(level)
    _LOG.propagate = False
    try:
        yield records
    finally:
        _LOG.removeHandler(handler)
        _LOG.setLevel(previous_level)
        _LOG.propagate = propagate
