"""Questions about a study, answered from its configuration: ``python -m ablations.study --help``."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from snakemake.utils import update_config

from ablations.study.checkout import root, shipped
from ablations.study.cli import one_line_errors
from ablations.study.compare import compare_experiments, compare_studies
from ablations.study.config.reading import read_yaml
from ablations.study.errors import UserError
from ablations.study.estimate.forecast import DEVICES, THIS, forecast, rates_of
from ablations.study.estimate.report import report, require_room
from ablations.study.planning.plan import Plan
from ablations.study.prune import remove, size, unneeded
from ablations.study.schemas import export
from ablations.study.status import cost, statuses

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
    show = commands.add_parser("show", help="what an experiment is: its paths, what it reads, its spec")
    show.add_argument("id", nargs="?", help="experiment; all experiments if left out")
    show.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="overlays, as snakemake takes them"
    )
    show.set_defaults(run=_show)
    forget = commands.add_parser("forget", help="delete an experiment's record, so that it is measured again")
    forget.add_argument("id", help="experiment")
    forget.add_argument("--configfile", type=Path, nargs="+", default=[], help="overlays")
    forget.set_defaults(run=_forget)
    status = commands.add_parser(
        "status", help="what is fresh, stale (and why) or never run, and what is to pay"
    )
    status.add_argument("--configfile", type=Path, nargs="+", default=[], help="overlays")
    status.set_defaults(run=_status)
    plan = commands.add_parser("plan", help="memory and time that a study is expected to take on a device")
    plan.add_argument("--configfile", type=Path, nargs="+", default=[], help="overlays")
    plan.add_argument(
        "--device", default=THIS, help=f"'{THIS}', by the jobs that ran in this folder, or one of {DEVICES}"
    )
    plan.set_defaults(run=_plan)
    prune = commands.add_parser(
        "prune",
        help=f"delete results that neither config.yaml nor an overlay in {STUDIES} needs, after asking",
    )
    prune.add_argument("--configfile", type=Path, nargs="+", default=[], help="further overlays to keep")
    prune.add_argument("--yes", action="store_true", help="do not ask")
    prune.set_defaults(run=_prune)
    side = commands.add_parser("compare", help="two experiments, or the folders of two studies, side by side")
    side.add_argument("one", help="experiment, or a folder in which results/ lies")
    side.add_argument("other", help="the same")
    side.add_argument("--configfile", type=Path, nargs="+", default=[], help="overlays")
    side.set_defaults(run=_compare)
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
    for path in (each.path for each in row.jobs):
        print(f"record  {path}  ({'exists' if path.exists() else 'missing'})")
    print(f"spec    {job.spec_path}")
    print(f"log     logs/{job.stage.rule}/{job.digest}.log")
    for name, needed in job.inputs.items():
        print(f"input   {name}: {needed.path}  ({'exists' if needed.path.exists() else 'missing'})")
    print(f"change  {json.dumps(row.experiment.change)}")
    print(f"run     python -m {job.stage.module} --spec {job.spec_path} --out {job.path}")
    print(job.spec.model_dump_json(indent=1))


def _forget(arguments: argparse.Namespace) -> None:
    row = Plan(_configuration(arguments.configfile), root()).row(arguments.id)
    found = [job.path for job in row.jobs if job.path.exists()]
    if not found:
        raise UserError(f"{row.experiment.id} has no record ({row.jobs[0].path}); there is nothing to forget")
    for job in row.jobs:
        for share in job.shares():
            share.unlink()
    for path in found:
        path.unlink()
        print(f"deleted {path}; the next snakemake run measures {row.experiment.id} again")


def _status(arguments: argparse.Namespace) -> None:
    plan = Plan(_configuration(arguments.configfile), root())
    found = statuses(plan)
    for one in found:
        took = f"{one.measured}  {one.seconds:7.1f} s  {one.device}" if one.measured else ""
        print(f"{one.id:10} {one.state:10} {took:36}  {one.why}".rstrip())
    counts = Counter(one.state for one in found)
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    due = cost(plan)
    if due.jobs:
        spent = (
            f"about {due.seconds / 60:.0f} min by this machine's past jobs" if due.seconds else "unknown time"
        )
        unknown = f" ({due.unknown} of them never timed here, not counted)" if due.unknown else ""
        print(f"{due.jobs} jobs to run before the paper's: {spent}{unknown}")
    for file in due.damaged:
        print(f"{file}: not what was written; snakemake makes it again")


def _plan(arguments: argparse.Namespace) -> None:
    study = Plan(_configuration(arguments.configfile), root())
    rates = rates_of(arguments.device)
    found = forecast(study, rates)
    print("\n".join(report(study, found, rates)), flush=True)
    require_room(found.values(), study, rates)


def _prune(arguments: argparse.Namespace) -> None:
    overlays = [[], *([path] for path in sorted(shipped(STUDIES).glob("*.yaml")))]
    if arguments.configfile:
        overlays.append(arguments.configfile)
    paths = unneeded(Plan(_configuration(chosen), root()) for chosen in overlays)
    if not paths:
        print("nothing to prune: every result belongs to a study")
        return
    sizes = [size(path) for path in paths]
    for path, taken in zip(paths, sizes, strict=True):
        print(f"{taken:>12,} bytes  {path}")
    what = f"{len(paths)} files and folders ({sum(sizes):,} bytes)"
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UserError("prune: nobody is there to ask; add --yes to delete these")
        if input(f"delete {what}? [y/N] ").strip().lower() != "y":
            return
    remove(paths)
    print(f"deleted {what}")


def _compare(arguments: argparse.Namespace) -> None:
    one, other = Path(arguments.one), Path(arguments.other)
    if one.is_dir() and other.is_dir():
        print(compare_studies(one, other))
        return
    plan = Plan(_configuration(arguments.configfile), root())
    first, second = (plan.row(name).experiment for name in (arguments.one, arguments.other))
    print(compare_experiments(first, second, plan.config.paper))


def _schema(_: argparse.Namespace) -> None:
    for path in export(SCHEMA_FOLDER):
        print(f"wrote {path}")


def _configuration(overlays: list[Path]) -> dict:
    """`config.yaml` with overlays merged as `snakemake --configfile` merges them."""
    config: dict = {}
    # Overlays go first too: so their experiments precede those of the study that they extend.
    for path in (*overlays, shipped(CONFIG), *overlays):
        part = read_yaml(path)
        if not isinstance(part, dict):
            raise UserError(f"{path}: a study's configuration is a map of keys")
        update_config(config, part)
    return config


if __name__ == "__main__":
    main()
