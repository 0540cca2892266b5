"""Rule `collect`: read every record of a study and compute all that the paper prints."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ablations.core.errors import one_line_errors, require_out
from ablations.core.files import canonical_json, write_text
from ablations.core.record import Environment, read_contract
from ablations.evidence.inputs import PaperInput
from ablations.evidence.records import ExperimentRecords
from ablations.paper.collecting.comparisons import comparisons
from ablations.paper.collecting.decoding import decoding_protocol
from ablations.paper.collecting.devices import require_one_device
from ablations.paper.collecting.grids import grid_results
from ablations.paper.collecting.models import model_facts, saliency_map
from ablations.paper.collecting.noise import noises
from ablations.paper.collecting.ranking import scorer_rankings
from ablations.paper.collecting.reading import read_all, without_cycles
from ablations.paper.collecting.rows import make_rows
from ablations.paper.collecting.sdtp import sdtp_protocol
from ablations.paper.collecting.sweeps import sweep_environments, sweep_results
from ablations.paper.ordering import ordered
from ablations.paper.summary import Machine, Summary


def summarise(plan: PaperInput) -> Summary:
    """Compute the summary of a study from its records.

    Raises:
        UserError: a record is damaged, is of another method, or has no or repeated documents; or times are of
            different devices.
    """
    measured = read_all(plan.experiments, plan.settings)
    arms = measured.arms
    sweeps = sweep_results(plan.sweeps)
    require_one_device(arms, sweeps, plan.settings)
    # Before decisions, which do not say whose records nothing can be computed from.
    compared = tuple(comparisons(arms, plan.settings))
    rows = make_rows(measured, plan.settings)
    summary = Summary(
        study=plan.study,
        settings=plan.settings,
        models=plan.models,
        sources=plan.sources,
        texts=plan.texts,
        facts=model_facts(plan.manifests),
        saliency=saliency_map(plan.saliency),
        rows=rows,
        comparisons=compared,
        ranking=scorer_rankings(arms, plan.settings),
        sweeps=sweeps,
        tree_grid=grid_results(plan.grids, "trees", plan.settings),
        length_grid=grid_results(plan.grids, "lengths", plan.settings),
        sdtp=sdtp_protocol(arms),
        decoding=decoding_protocol(arms, plan.settings),
        family=plan.family,
        noise=tuple(noises(measured.repeated, rows)),
        machines=_machines(arms, sweep_environments(plan.sweeps)),
    )
    return ordered(summary)


def _machines(arms: Mapping[str, ExperimentRecords], sweeps: Iterable[Environment]) -> tuple[Machine, ...]:
    shared = (
        "host",
        "device",
        "device_type",
        "threads",
        "dtype",
        "platform",
        "versions",
        "git_commit",
        "git_dirty",
    )
    groups: dict[str, tuple[dict[str, Any], list[str]]] = {}

    def experiments(method: str, environment: Environment) -> list[str]:
        facts = {"method": method, **environment.model_dump(include=set(shared))}
        return groups.setdefault(canonical_json(facts), (facts, []))[1]

    for arm in arms.values():
        for record in arm.records:
            names = experiments(arm.experiment.method, record.environment)
            if arm.experiment.id not in names:
                names.append(arm.experiment.id)
    # A sweep is no experiment; what measured nothing else has none.
    for environment in sweeps:
        experiments("sdtp", environment)
    return tuple(Machine(**facts, experiments=tuple(names)) for facts, names in groups.values())


def main() -> None:
    """Command line of the rule `collect`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.collect",
        description="Read every record of a study and compute what the paper prints.",
        epilog="example: python -m ablations.paper.collect --plan results/stamp/collect.json"
        " --out results/summary.json",
    )
    parser.add_argument(
        "--plan", type=Path, required=True, help="which experiments there are, and the settings"
    )
    parser.add_argument("--out", type=Path, required=True, help="summary to write, atomically")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out), without_cycles():
        require_out(arguments.out)
        summary = summarise(read_contract(arguments.plan, PaperInput))
        write_text(arguments.out, summary.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
