"""Job `train_pruner`: train token scorers with the language model frozen (arXiv 2504.04514, section 3)."""

import time
from statistics import fmean
from typing import Any

from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.job import Run, main
from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.sdtp.scores.pruner import PRUNER_FILE, save_pruner
from ablations.sdtp.scores.table import read_saliency
from ablations.sdtp.training.checkpoint import Checkpoint
from ablations.sdtp.training.ranking import rank_heldout
from ablations.sdtp.training.trainer import PrunerTrainer, untrained
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.saliency import require_saliency
from ablations.specs.sdtp.train import PrunerSpec, require_choice


def train_pruner(run: Run[PrunerSpec]) -> None:
    """Train a pruner on a saliency table, measure its ranking, and write it.

    Raises:
        UserError: no loss has a gradient, table or model lack a layer, windows are too short, or the training
            diverges.
    """
    spec = run.spec
    device = configure(spec.compute)
    table = read_saliency(run.job.path("saliency"), spec.layers)
    require_choice(spec, table.spec)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    if not (spec.losses.lm or table.spec.target.stages(spec.layers, lm.num_layers)):
        why = "without an LM loss (losses.lm) nothing would be trained"
        require_saliency(table.spec.target, spec.layers, lm.num_layers, "saliency.measure", why)
    trainer = PrunerTrainer(lm, spec, table)
    # Beside the result's folder, which is created only when the result is complete.
    checkpoint = Checkpoint(run.out.parent.parent / f".{run.job.digest}.checkpoint")
    seconds = train(trainer, checkpoint)
    trained, initial = rank_heldout(lm, table, spec, [trainer.pruner, untrained(lm, spec)])
    facts: dict[str, Any] = {
        "saliency": table.spec.model_dump(mode="json"),
        "losses": _last_epoch(trainer),
        "ranking": [ranking.model_dump(mode="json") for ranking in trained],
        "ranking_untrained": [ranking.model_dump(mode="json") for ranking in initial],
        "prompt_tokens": trainer.prompt_tokens,
        "living": list(trainer.living_counts),
        "parameters": sum(parameter.numel() for parameter in trainer.pruner.parameters()),
        "seconds": seconds,
    }
    with new_artefact(run, facts) as folder:
        save_pruner(folder / PRUNER_FILE, trainer.pruner, spec)
    checkpoint.remove()


def train(trainer: PrunerTrainer, checkpoint: Checkpoint) -> float:
    """Take all steps, resuming from the checkpoint if there is one; return the seconds of all steps.

    Raises:
        UserError: the training diverges.
    """
    saved = checkpoint.load()
    seconds = 0.0
    if saved is not None and trainer.load_state_dict(saved["trainer"]):
        seconds = saved["seconds"]
    start = time.perf_counter() - seconds
    with tqdm(total=trainer.steps, initial=len(trainer.history), desc="train pruner", mininterval=2) as bar:
        while not trainer.finished:
            bar.set_postfix(trainer.step(), refresh=False)
            bar.update()
            checkpoint.save_if_due(
                lambda: {"trainer": trainer.state_dict(), "seconds": time.perf_counter() - start}
            )
    return time.perf_counter() - start


def _last_epoch(trainer: PrunerTrainer) -> dict[str, float]:
    """Mean losses of the last epoch's steps."""
    rows = trainer.history[-trainer.epoch_steps :]
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    main("ablations.sdtp.train", PrunerSpec, train_pruner, __doc__)
