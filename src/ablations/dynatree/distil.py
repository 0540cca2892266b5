"""Job: distil a draft from a target, on the target's text and states (job `distil_teacher`)."""

from typing import Any

import torch

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.job import Run, main
from ablations.dynatree.distilling.model import DRAFT_FILE, DistilledDraft
from ablations.dynatree.distilling.sequences import read_teacher_sequences
from ablations.dynatree.distilling.training import DraftTrainer, load_draft
from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.specs.dynatree.distil import DistilSpec
from ablations.specs.lm import Compute
from ablations.specs.userfiles import require_unchanged, user_path


def run(run: Run[DistilSpec]) -> None:
    """Train a draft and write it; without epochs, the one to start from.

    Raises:
        UserError: an input is invalid, the draft to start from was edited since the job was planned, there
            are too few sequences or tokens, or the training diverges.
    """
    spec = run.spec
    device = configure(spec.compute)
    # Weights and states are in float32; the trainer multiplies in the spec's data type.
    target = load_model(run.job.path("model"), Compute(threads=spec.compute.threads), device)
    if spec.start is not None and "start" in run.job.input_digests:
        require_unchanged(user_path(spec.start), run.job.input_digests["start"])
    if not spec.epochs:
        assert spec.start is not None
        draft = load_draft(user_path(spec.start), target, spec.vocabulary)
        _write(run, draft, {})
        return
    teacher = run.job.path("teacher")
    sequences, counts = read_teacher_sequences(teacher, spec.unroll)
    if len(sequences) <= spec.heldout:
        raise UserError(
            f"{teacher}: {len(sequences)} sequences leave none to train on beside distil.heldout"
            f" ({spec.heldout}); raise 'texts' or 'questions' of the teacher"
        )
    if spec.vocabulary > len(counts):
        raise UserError(
            f"distil.vocabulary: {spec.vocabulary} tokens, but the target has {len(counts)}; lower it"
        )
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(spec.seed))
    heldout, training = sequences[order[: spec.heldout]], sequences[order[spec.heldout :]]
    trainer = DraftTrainer(target, spec, counts)
    if spec.start is None:
        trainer.fit_join(training)
    initial_agreement = trainer.agreement(heldout)
    loss = trainer.train(training)
    facts = {
        "sequences": len(training),
        "written": int(training.generated.sum()),
        "loss": loss,
        "agreement": trainer.agreement(heldout),
        "agreement_before_training": initial_agreement,
        "known_share": trainer.known_share(heldout),
    }
    _write(run, trainer.draft, facts)


def _write(run: Run[DistilSpec], draft: DistilledDraft, facts: dict[str, Any]) -> None:
    parameters = sum(weight.numel() for weight in draft.parameters() if weight.requires_grad)
    with new_artefact(run, {**facts, "parameters": parameters, "seconds": run.seconds}) as folder:
        draft.save(folder / DRAFT_FILE)


if __name__ == "__main__":
    main("ablations.dynatree.distil", DistilSpec, run, "Distil a draft from a target.")
