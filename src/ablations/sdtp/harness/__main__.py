"""Downstream tasks of lm-evaluation-harness with one pruning configuration and with the unpruned model.

``python -m ablations.sdtp.harness --spec results/spec/DIGEST.json --tasks NAME[,NAME] --out FILE.json``
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ablations.core.errors import UserError, one_line_errors, require_out
from ablations.core.job import JobFile, Run, read_job, require_code, require_pins
from ablations.specs.sdtp.evaluate import PrunedSeries, Series
from ablations.specs.sdtp.record import EvaluateSpec


def read_configuration(path: Path) -> tuple[JobFile[PrunedSeries], Path]:
    """The job of a series of an experiment, and the path of its spec.

    Args:
        path: Spec file of a series, or of an experiment's record, which names the series of its text.

    Raises:
        UserError: a file is missing, or is neither.
    """
    series_type: Any = Series
    try:
        return read_job(path, series_type), path
    except UserError as error:
        try:
            record = read_job(path, EvaluateSpec)
        except UserError:
            raise error from None
        series = path.with_name(f"{Path(record.inputs['text']).name}.json")
        return read_job(series, series_type), series


def main() -> None:
    """Parse the command line, run the tasks, turn errors into one line."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.sdtp.harness",
        description="Score downstream tasks under one pruning configuration, beside the unpruned model.",
        epilog="example: python -m ablations.sdtp.harness --spec results/spec/DIGEST.json --tasks copa,piqa"
        " --fewshot 5 --out tasks.json",
    )
    parser.add_argument(
        "--spec", type=Path, required=True, help="spec file of an SDTP experiment or of its text"
    )
    parser.add_argument("--tasks", required=True, help="names of tasks or groups, separated by commas")
    parser.add_argument("--include-path", type=Path, help="folder with task definitions (YAML) of your own")
    parser.add_argument("--limit", type=int, help="items of each task (default: all)")
    parser.add_argument("--fewshot", type=int, help="worked examples per prompt (default: the task's)")
    parser.add_argument("--chat-template", action="store_true", help="apply the model's chat template")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, atomically")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        if find_spec("lm_eval") is None:
            raise UserError("lm-eval is not installed; pip install -c constraints.txt -e '.[harness]'")
        job, spec_path = read_configuration(arguments.spec)
        require_pins(job.pins)
        require_code(job, spec_path)
        # Imported late, since `run` imports lm-eval, which may be missing.
        from ablations.sdtp.harness.run import run_tasks
        from ablations.sdtp.harness.scores import as_text
        from ablations.sdtp.harness.tasks import TaskRequest

        request = TaskRequest(
            tasks=arguments.tasks.split(","),
            include_path=arguments.include_path,
            limit=arguments.limit,
            fewshot=arguments.fewshot,
            chat_template=arguments.chat_template,
        )
        print(as_text(run_tasks(Run(job, arguments.out, None), request).scores))


if __name__ == "__main__":
    main()
