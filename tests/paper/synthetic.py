"""A synthetic study through the real contracts: plausible random records, a plan, nothing measured.

Run as a script to look at what the renderers make of it:
``python -m tests.paper.synthetic FOLDER`` writes FOLDER/results/... for ``ablations.paper.collect``.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.core.files import write_text
from ablations.core.record import write_record
from ablations.evidence.expectations import Expectation, Experiment
from ablations.evidence.inputs import PaperInput, PaperSettings
from tests.paper.design import SMALL, WHOLE, Row
from tests.paper.synthetic_decoding import CONFIRMATORY, DYNATREE, SHARED, decode_record, timed_prompts
from tests.paper.synthetic_grid import length_grid, tree_grid
from tests.paper.synthetic_sdtp import sdtp_record, sweep

GRIDS = {"trees": tree_grid, "lengths": length_grid}


def plan_of(
    folder: Path,
    settings: dict[str, Any] | None = None,
    extra: tuple[Experiment, ...] = (),
    design: dict[str, Row] = SMALL,
    lengths: tuple[int, ...] = (),
    grids: bool = False,
) -> PaperInput:
    """The plan of the synthetic study, its records under `folder`."""
    experiments = [
        Experiment(
            id=name,
            method="sdtp",
            title=row.title,
            section=row.section,
            change=row.change,
            hypothesis=row.hypothesis,
            expect=Expectation(**row.expect),
            versus=None if name == "baseline" else row.versus,
            records=tuple(str(path) for path in _paths(folder, name, row)),
            seeds=tuple(range(row.seeds)) if row.importance == "learned" else (),
        )
        for name, row in design.items()
    ]
    experiments += [
        Experiment(
            id=name,
            method="dynatree",
            title=title,
            section=section,
            step=step,
            change=change,
            hypothesis=hypothesis,
            expect=Expectation(**expect),
            versus=versus,
            records=(str(folder / "record" / f"{SHARED.get(name, name)}.json"),),
            budget={"prompts": budget} if budget else {},
        )
        for name, (title, section, step, change, hypothesis, expect, versus, *_, budget) in DYNATREE.items()
    ]
    options = {
        "forward": ("F1", "F2", "F3", "F4"),
        "backward": ("K1", "K2", "K3", "K4", "K5"),
        "confirmatory": {"sdtp": ("A2", "A5", "A6", "A7"), "dynatree": CONFIRMATORY},
    }
    return PaperInput(
        study="synthetic",
        settings=PaperSettings(**{**options, **(settings or {})}),
        experiments=(*experiments, *extra),
        models={"sdtp": "Tiny-LM (random weights)", "dynatree": "Tiny-LM (random weights)"},
        texts={
            "sdtp": "the CPython documentation and library",
            "saliency": "the CPython documentation and library",
            "code": "HumanEval",
            "docs": "the CPython documentation and library",
            "chat": "everyday instructions",
        },
        sweeps=tuple(str(folder / "sweep" / f"{length}.json") for length in lengths),
        grids={name: str(folder / "grid" / f"{name}.json") for name in GRIDS} if grids else {},
        code="0" * 64,
    )


def write_study(
    folder: Path,
    *,
    documents: int = 40,
    settings: dict[str, Any] | None = None,
    missing: tuple[str, ...] = (),
    crashed: tuple[str, ...] = (),
    added_nll: dict[str, float] | None = None,
    speedups: dict[str, float] | None = None,
    extra: tuple[Experiment, ...] = (),
    unmatched: int = 0,
    design: dict[str, Row] = SMALL,
    lengths: tuple[int, ...] = (),
    grids: bool = False,
    replayed: bool = True,
) -> Path:
    """Write records and plan; return the plan's path.

    Args:
        folder: Where `record/` and `collect.json` go.
        documents: Held-out documents of an SDTP arm, and its retrieval prompts.
        settings: Overrides of the paper settings.
        missing: Experiments without a record.
        crashed: Experiments whose arm raised.
        added_nll: NLL over the unpruned model, by id.
        speedups: Speed-ups, by id.
        extra: Further experiments (records are the caller's).
        unmatched: Prompts of each decoding arm that depart from greedy at a tie.
        design: SDTP rows.
        lengths: Prompt lengths of the sweep.
        grids: Whether drafts of many shapes were replayed.
        replayed: Whether decoding arms were replayed on more prompts than they were timed on.
    """
    plan = plan_of(folder, settings, extra, design, lengths, grids)
    for name, row in design.items():
        if name in missing:
            continue
        row = replace(
            row,
            added=(added_nll or {}).get(name, row.added),
            speedup=(speedups or {}).get(name, row.speedup),
            crashed=row.crashed or name in crashed,
        )
        for seed, path in enumerate(_paths(folder, name, row)):
            write_record(path, sdtp_record(name, documents, row, seed))
    for length in lengths:
        write_text(folder / "sweep" / f"{length}.json", sweep(length).model_dump_json(indent=1))
    for name in plan.grids:
        write_text(folder / "grid" / f"{name}.json", GRIDS[name]().model_dump_json(indent=1))
    for name, (*_, speedup, accepted, draft, _) in DYNATREE.items():
        path = folder / "record" / f"{name}.json"
        if name in missing or name in SHARED:
            continue
        record = decode_record(
            name,
            (speedups or {}).get(name, speedup),
            accepted,
            draft,
            timed=timed_prompts(name, replayed),
            replayed=replayed,
            crashed=name in crashed,
            unmatched=unmatched,
        )
        write_record(path, record)
    out = folder / "collect.json"
    out.write_text(plan.model_dump_json(indent=1))
    return out


def _paths(folder: Path, name: str, row: Row) -> list[Path]:
    return [
        folder / "record" / (f"{name}-{seed}.json" if seed else f"{name}.json") for seed in range(row.seeds)
    ]


if __name__ == "__main__":
    print(write_study(Path(sys.argv[1]), design=WHOLE, lengths=(512, 1024, 2048, 4096), grids=True))
