"""Questions about a study, answered from its configuration: ``python -m ablations.study --help``."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from snakemake.utils import update_config

from ablations.core.errors import UserError, one_line_errors
from ablations.core.panel import read_panel
from ablations.specs.userfiles import root, shipped
from ablations.study import extend
from ablations.study.compare import compare_experiments, compare_studies
from ablations.study.config.reading import read_yaml
from ablations.study.estimate.forecast import DEVICES, THIS, Forecasts, rates_of, report, require_room
from ablations.study.invocation import require_idle
from ablations.study.planning.extension import EXTENSION, write_extension
from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import PANEL
from ablations.study.prospects import after_a_run, before_a_run, measured, told
from ablations.study.prune import remove, size, unneeded
from ablations.study.schemas import export
from ablations.study.status import blocks, remaining_work, statuses

CONFIG = Path("config.yaml")
SCHEMA_FOLDER = Path("workflow/schemas")
STUDIES = Path("workflow/studies")


def main() -> None:
    """Run one subcommand in the folder of a study (where `results/` lies)."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.study",
        description="Questions about the study in the working directory.",
        epilog="example: python -m ablations.study show A7",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    of_study = argparse.ArgumentParser(add_help=False)
    of_study.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="overlays, as snakemake takes them"
    )

    def add(name: str, run: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, parents=[of_study])
        command.set_defaults(run=run)
        return command

    show = add("show", _show, "what an experiment is: its paths, what is measured, what it reads, its spec")
    show.add_argument("id", nargs="?", help="experiment; all experiments if left out")
    forget = add("forget", _forget, "delete an experiment's records and blocks, so that it is measured again")
    forget.add_argument("id", help="experiment")
    add("status", _status, "what is fresh, unfinished, stale (and why) or never run, and what is to pay")
    plan = add(
        "plan",
        _plan,
        "what a study decides, what open predictions would need, and blocks, memory and time on a device",
    )
    plan.add_argument(
        "--device", default=THIS, help=f"'{THIS}', by the jobs that ran in this folder, or one of {DEVICES}"
    )
    further = add(
        "extend",
        _extend,
        "go on with open predictions to the next of paper.looks, those first that a minute decides most of",
    )
    further.add_argument("--minutes", type=_minutes, required=True, help="most time to add")
    prune = add(
        "prune",
        _prune,
        "delete results that neither config.yaml, nor the overlays given, nor an overlay in"
        f" {STUDIES} needs, after asking",
    )
    prune.add_argument("--yes", action="store_true", help="do not ask")
    side = add("compare", _compare, "two experiments, or the folders of two studies, side by side")
    side.add_argument("one", help="experiment, or a folder in which results/ lies")
    side.add_argument("other", help="the same")
    schema = commands.add_parser("schema", help=f"export the JSON schemas to {SCHEMA_FOLDER}")
    schema.set_defaults(run=_schema)
    arguments = parser.parse_args()
    with one_line_errors(CONFIG):
        arguments.run(arguments)


def _show(arguments: argparse.Namespace) -> None:
    plan = Plan(_configuration(arguments.configfile), root())
    if arguments.id is None:
        for row in plan.rows:
            measured = sum(job.path.exists() for job in row.jobs)
            state = f"{measured} of {len(row.jobs)} measured"
            print(f"{row.experiment.id:10} {row.jobs[0].path}  {state:16}  {row.experiment.title}")
        return
    row = plan.row(arguments.id)
    job = row.jobs[0]
    print(f"{row.experiment.id}: {row.experiment.title}")
    for path in (job.path for job in row.jobs):
        print(f"record  {path}  ({_there(path)})")
    every = {series.digest: (name, series) for job in row.jobs for name, series in job.series.items()}
    for name, series in every.values():
        there, missing = blocks(series, plan)
        print(f"blocks  {name}: {series.path}  ({there} there, {missing} missing)")
    print(f"spec    {job.spec_path}")
    for log in _logs(row.jobs, every):
        print(f"log     {log}")
    reading = (*row.jobs, *(series for _, series in every.values()))
    inputs = {(name, read.path) for each in reading for name, read in each.inputs.items()}
    for name, path in sorted(inputs - {(name, series.path) for name, series in every.values()}):
        print(f"input   {name}: {path}  ({_there(path)})")
    print(f"change  {json.dumps(row.experiment.change)}")
    print(f"run     snakemake --cores 1 {row.experiment.id}")
    print(job.spec.model_dump_json(indent=1))


def _there(path: Path) -> str:
    return "exists" if path.exists() else "missing"


def _logs(records: Iterable[Job], series: Collection[str]) -> Iterator[Path]:
    """Logs that are there of the joining of records and of the panels that measured for them."""
    logs = [Path(f"logs/{job.stage.rule}/{job.digest}.log") for job in records]
    for path in sorted(Path(PANEL).parent.glob("*.json")):
        panel = read_panel(path)
        if any(entry.digest in series for entry in panel.entries):
            logs.append(Path(f"logs/{panel.rule}/{path.stem}.log"))
    return filter(Path.exists, logs)


def _forget(arguments: argparse.Namespace) -> None:
    plan = Plan(_configuration(arguments.configfile), root())
    row = plan.row(arguments.id)
    records = {job.digest: job.path for job in row.jobs}
    folders = {series.digest: series.path for job in row.jobs for series in job.series.values()}
    there = [path for path in (*records.values(), *folders.values()) if path.exists()]
    if not there:
        raise UserError(f"{row.experiment.id} has no record ({row.jobs[0].path}); there is nothing to forget")
    remove(there)
    for path in there:
        print(f"deleted {path}")
    others = [other for other in plan.rows if other is not row]
    again = [other.experiment.id for other in others if {job.digest for job in other.jobs} & {*records}]
    print(f"the next snakemake run measures {', '.join([row.experiment.id, *again])} again")
    for other in others:
        shared = {series.digest for job in other.jobs for series in job.series.values()} & {*folders}
        if shared and other.experiment.id not in again:
            print(f"{other.experiment.id} had blocks in common with it; a record of it that is there stays")


def _status(arguments: argparse.Namespace) -> None:
    plan = Plan(_configuration(arguments.configfile), root())
    states = statuses(plan)
    for status in states:
        last = f"{status.measured}  {status.seconds:7.1f} s  {status.device}" if status.measured else ""
        print(f"{status.id:10} {status.state:10} {last:36}  {status.reason}".rstrip())
    counts = Counter(status.state for status in states)
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    remaining = remaining_work(plan)
    if remaining.experiments or remaining.jobs:
        minutes = remaining.seconds / 60
        time = f"about {minutes:.0f} min by what was done here" if remaining.seconds else "unknown time"
        unknown = (
            f" ({remaining.unknown} processes never timed here, not counted)" if remaining.unknown else ""
        )
        print(
            f"{remaining.experiments} experiments to measure ({remaining.blocks} blocks) and {remaining.jobs}"
            f" other jobs before the paper's: {time}{unknown}"
        )
    for file in remaining.damaged:
        print(f"{file}: not what was written; snakemake makes it again")


def _plan(arguments: argparse.Namespace) -> None:
    study = Plan(_configuration(arguments.configfile), root())
    print("\n".join(before_a_run(study)))
    if any(path.exists() for path in study.records):
        (found, every), needs = after_a_run(measured(study.paper_plan("")), study.config.paper)
        print("\n".join((f"{found} of {every} decided", *told(needs))))
    print(flush=True)
    rates = rates_of(arguments.device)
    forecasts = Forecasts(study, rates)
    print("\n".join(report(study, forecasts, rates)), flush=True)
    require_room(forecasts, study, rates)


def _extend(arguments: argparse.Namespace) -> None:
    require_idle("extend")
    choice = extend.choose(Plan(_configuration(arguments.configfile), root()), arguments.minutes)
    print("\n".join(extend.told(choice)))
    if choice.steps:
        write_extension(choice.series)
        print(f"wrote {EXTENSION} (delete it to go back); snakemake, run as before, measures what is missing")


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} minutes are no time to measure in; give some, 20 say")
    return minutes


def _prune(arguments: argparse.Namespace) -> None:
    own = [[], *([arguments.configfile] if arguments.configfile else [])]
    plans = [Plan(_configuration(files), root()) for files in own]
    for path in sorted(shipped(STUDIES).glob("*.yaml")):
        try:
            plans.append(Plan(_configuration([path]), root()))
        except UserError as error:
            # One that reads files which nobody fetched here.
            print(f"{path} cannot be planned here, and none of its results is needed: {error}")
    paths = unneeded(plans)
    if not paths:
        print("nothing to prune: every result belongs to a study")
        return
    sizes = [size(path) for path in paths]
    for path, path_size in zip(paths, sizes, strict=True):
        print(f"{path_size:>12,} bytes  {path}")
    total = f"{len(paths)} files and folders ({sum(sizes):,} bytes)"
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UserError("prune: nobody is there to ask; add --yes to delete these")
        if input(f"delete {total}? [y/N] ").strip().lower() != "y":
            return
    remove(paths)
    print(f"deleted {total}")


def _compare(arguments: argparse.Namespace) -> None:
    folders = Path(arguments.one), Path(arguments.other)
    if all(folder.is_dir() for folder in folders):
        print(compare_studies(*folders))
        return
    plan = Plan(_configuration(arguments.configfile), root())
    first, second = (plan.row(name).experiment for name in (arguments.one, arguments.other))
    print(compare_experiments(first, second, plan.config.paper))


def _schema(_: argparse.Namespace) -> None:
    for path in export(SCHEMA_FOLDER):
        print(f"wrote {path}")


def _configuration(overlays: list[Path]) -> dict:
    """`config.yaml` with overlays merged as `snakemake --configfile` merges them."""
    overlaid: dict = {}
    for path in overlays:
        update_config(overlaid, _map_of_keys(path))
    config: dict = {}
    # Overlays are merged twice, so that their experiments precede those of the study that they extend.
    for part in (overlaid, _map_of_keys(shipped(CONFIG)), overlaid):
        update_config(config, part)
    return config


def _map_of_keys(path: Path) -> dict:
    part = read_yaml(path)
    if not isinstance(part, dict):
        raise UserError(f"{path}: a study's configuration is a map of keys")
    return part


if __name__ == "__main__":
    main()
