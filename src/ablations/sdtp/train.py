"""Jobs `train_pruner`: train token scorers with the language model frozen (arXiv 2504.04514, section 3)."""

import time
from collections.abc import Iterable
from functools import cache
from math import ceil
from statistics import fmean
from typing import Any, NamedTuple

from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.job import Run
from ablations.core.panel import Member, Panel, main
from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.lm.layered import LayeredLM
from ablations.sdtp.scores.pruner import PRUNER_FILE, save_pruner
from ablations.sdtp.scores.table import SaliencyTable, read_saliency
from ablations.sdtp.training.checkpoint import Checkpoint
from ablations.sdtp.training.ranking import rank_heldout
from ablations.sdtp.training.states import UnprunedStates
from ablations.sdtp.training.trainer import PrunerTrainer, untrained
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.saliency import require_saliency
from ablations.specs.sdtp.train import PrunerSpec, require_choice


class Training(NamedTuple):
    """A training of a panel, and the table that it learns from."""

    member: Member[PrunerSpec]
    table: SaliencyTable


def train_pruners(panel: Panel[PrunerSpec]) -> None:
    """Train pruners one after the other; write each as soon as it is trained and its ranking measured.

    A training whose result is there is skipped. One fails alone if its table is missing or corrupt, no loss
    has a gradient, table or model lack a layer, windows are too short, or it diverges.

    Raises:
        UserError: the model is missing or corrupt.
    """
    device = configure(panel.first.spec.compute)
    trainings = _with_tables(panel)
    if not trainings:
        return
    lm = load_model(panel.first.job.path("model"), panel.first.spec.compute, device)
    for group in _on_the_same_states(trainings):
        states = UnprunedStates(lm, group[0].table, group[0].member.spec.layers)
        for training in group:
            with training.member.at_work():
                _train(training.member.run, lm, training.table, states)


def _with_tables(panel: Panel[PrunerSpec]) -> list[Training]:
    """The trainings that are due and can begin."""
    read = cache(read_saliency)
    trainings = []
    for member in panel.due():
        with member.at_work():
            table = read(member.run.job.path("saliency"), member.spec.layers)
            require_choice(member.spec, table.spec)
            trainings.append(Training(member, table))
    return trainings


def _on_the_same_states(trainings: Iterable[Training]) -> list[list[Training]]:
    """Trainings by what the unpruned states depend on: the windows, and the layers."""
    groups: dict[tuple, list[Training]] = {}
    for training in trainings:
        table = training.table
        key = (
            training.member.spec.layers,
            table.ids.shape,
            table.prompt_tokens,
            table.ids.numpy().tobytes(),
            table.continuations.numpy().tobytes(),
        )
        groups.setdefault(key, []).append(training)
    return list(groups.values())


def _train(run: Run[PrunerSpec], lm: LayeredLM, table: SaliencyTable, states: UnprunedStates) -> None:
    spec = run.spec
    require_layers(spec.layers, lm.num_layers)
    if not (spec.losses.lm or table.spec.target.stages(spec.layers, lm.num_layers)):
        why = "without an LM loss (losses.lm) nothing would be trained"
        require_saliency(table.spec.target, spec.layers, lm.num_layers, "saliency.measure", why)
    trainer = PrunerTrainer(lm, spec, table, states)
    # Beside the result's folder, which is created only when the result is complete.
    checkpoint = Checkpoint(run.out.parent.parent / f".{run.job.digest}.checkpoint")
    seconds = train(trainer, checkpoint, f"train {run.label or 'pruner'}")
    trained, initial = rank_heldout(lm, table, spec, [trainer.pruner, untrained(lm, spec)], states)
    facts: dict[str, Any] = {
        "saliency": table.spec.model_dump(mode="json"),
        "losses": _last_pass(trainer),
        "ranking": [ranking.model_dump(mode="json") for ranking in trained],
        "ranking_untrained": [ranking.model_dump(mode="json") for ranking in initial],
        "prompt_tokens": table.prompt_tokens,
        "living": list(trainer.living_counts),
        "parameters": sum(parameter.numel() for parameter in trainer.pruner.parameters()),
        "seconds": seconds,
    }
    with new_artefact(run, facts) as folder:
        save_pruner(folder / PRUNER_FILE, trainer.pruner, spec)
    checkpoint.remove()


def train(trainer: PrunerTrainer, checkpoint: Checkpoint, label: str = "train pruner") -> float:
    """Take all steps, resuming from the checkpoint if there is one; return the seconds of all steps.

    Args:
        trainer: The training.
        checkpoint: Its checkpoint.
        label: What the progress bar calls it.

    Raises:
        UserError: the training diverges.
    """
    saved = checkpoint.load()
    seconds = 0.0
    if saved is not None and trainer.load_state_dict(saved["trainer"]):
        seconds = saved["seconds"]
    start = time.perf_counter() - seconds
    with tqdm(total=trainer.steps, initial=len(trainer.history), desc=label, mininterval=2) as bar:
        while not trainer.finished:
            bar.set_postfix(trainer.step(), refresh=False)
            bar.update()
            checkpoint.save_if_due(
                lambda: {"trainer": trainer.state_dict(), "seconds": time.perf_counter() - start}
            )
    return time.perf_counter() - start


def _last_pass(trainer: PrunerTrainer) -> dict[str, float]:
    """Mean losses of the steps of the last masked pass, or of the part of a pass."""
    of_a_pass = ceil(int((~trainer.table.heldout).sum()) / trainer.spec.batch)
    rows = trainer.history[trainer.warmup_steps :][-of_a_pass:]
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    main("ablations.sdtp.train", PrunerSpec, train_pruners, __doc__)
