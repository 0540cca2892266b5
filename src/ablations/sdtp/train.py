"""Job `train_pruner`: learn to score tokens, the language model frozen (arXiv 2504.04514, section 3)."""

import time
from statistics import fmean
from typing import Any

from tqdm import tqdm

from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.sdtp.pruned.selection import require_layers
from ablations.sdtp.scores.pruner import PRUNER_FILE, save_pruner
from ablations.sdtp.scores.table import read_saliency
from ablations.sdtp.training.checkpoint import Checkpoint
from ablations.sdtp.training.ranking import rank_heldout
from ablations.sdtp.training.trainer import Trainer, untrained
from ablations.study.artefact import new_artefact
from ablations.study.contracts.sdtp import PrunerSpec, require_choice, require_saliency
from ablations.study.errors import UserError
from ablations.study.job import Run, main


def train_pruner(run: Run[PrunerSpec]) -> None:
    """Train a pruner on a saliency table, measure how it ranks, and write it.

    Raises:
        UserError: float16, no loss or none that says anything, layers that table or model lack, windows too
            short, or a training that diverges.
    """
    spec = run.spec
    if spec.compute.dtype == "float16":
        raise UserError("compute.dtype: float16 gradients underflow; use bfloat16 or float32")
    if not (spec.losses.lm or spec.losses.mse or spec.losses.ranking):
        raise UserError("losses: all weights are zero, so nothing would be trained; raise one")
    device = configure(spec.compute)
    table = read_saliency(run.job.path("saliency"), spec.layers)
    require_choice(spec, table.spec)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    if not (spec.losses.lm or table.spec.target.stages(spec.layers, lm.num_layers)):
        why = "without an LM loss (losses.lm) nothing would be trained"
        require_saliency(table.spec.target, spec.layers, lm.num_layers, "saliency.measure", why)
    trainer = Trainer(lm, spec, table)
    # Beside the folder of the result, which appears whole and only at the end.
    checkpoint = Checkpoint(run.out.parent.parent / f".{run.job.digest}.checkpoint")
    seconds = train(trainer, checkpoint)
    trained, before = rank_heldout(lm, table, spec, [trainer.pruner, untrained(lm, spec)])
    facts: dict[str, Any] = {
        "saliency": table.spec.model_dump(mode="json"),
        "losses": _last_epoch(trainer),
        "ranking": [ranking.model_dump(mode="json") for ranking in trained],
        "ranking_untrained": [ranking.model_dump(mode="json") for ranking in before],
        "prompt_tokens": trainer.prompt,
        "living": list(trainer.counts),
        "parameters": sum(parameter.numel() for parameter in trainer.pruner.parameters()),
        "seconds": seconds,
    }
    with new_artefact(run, facts) as folder:
        save_pruner(folder / PRUNER_FILE, trainer.pruner, spec)
    checkpoint.remove()


def train(trainer: Trainer, checkpoint: Checkpoint) -> float:
    """Take all steps, from the checkpoint on if there is one; return the seconds that all of them took.

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


def _last_epoch(trainer: Trainer) -> dict[str, float]:
    """Mean losses of the last epoch's steps."""
    rows = trainer.history[-trainer.epoch :]
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    main("ablations.sdtp.train", PrunerSpec, train_pruner, __doc__)
