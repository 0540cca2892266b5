"""Job: distil a draft from a target, on text and states that the target left (`distil_teacher`)."""

import torch

from ablations.dynatree.distilling.lessons import read_lessons
from ablations.dynatree.distilling.model import DRAFT_FILE
from ablations.dynatree.distilling.training import Trainer
from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.study.artefact import new_artefact
from ablations.study.contracts.dynatree import DistilSpec
from ablations.study.contracts.lm import Compute
from ablations.study.errors import UserError
from ablations.study.job import Run, main
from ablations.study.userfiles import require_unchanged, user_path


def run(run: Run[DistilSpec]) -> None:
    """Train a draft and write it.

    Raises:
        UserError: bad input, a draft to start from that was edited since the job was planned, float16,
            too few sequences or tokens, or a training that diverges.
    """
    spec = run.spec
    if spec.compute.dtype == "float16":
        raise UserError("distil.compute.dtype: float16 gradients underflow; use bfloat16 or float32")
    device = configure(spec.compute)
    teacher = run.job.path("teacher")
    lessons, counts = read_lessons(teacher, spec.unroll)
    if len(lessons) <= spec.heldout:
        raise UserError(
            f"{teacher}: {len(lessons)} sequences leave none to train on beside distil.heldout"
            f" ({spec.heldout}); raise 'texts' or 'questions' of the teacher"
        )
    if spec.vocabulary > len(counts):
        raise UserError(
            f"distil.vocabulary: {spec.vocabulary} tokens, but the target has {len(counts)}; lower it"
        )
    # Weights and states stay in float32; the trainer's products are in the data type of the spec.
    target = load_model(run.job.path("model"), Compute(threads=spec.compute.threads), device)
    order = torch.randperm(len(lessons), generator=torch.Generator().manual_seed(spec.seed))
    heldout, training = lessons[order[: spec.heldout]], lessons[order[spec.heldout :]]
    trainer = Trainer(target, spec, counts)
    if spec.start is not None and "start" in run.job.input_digests:
        require_unchanged(user_path(spec.start), run.job.input_digests["start"])
    if spec.start is None:
        trainer.fit_join(training)
    fitted = trainer.agreement(heldout)
    loss = trainer.train(training)
    facts = {
        "sequences": len(training),
        "written": int(training.written.sum()),
        "loss": loss,
        "agreement": trainer.agreement(heldout),
        "agreement_before_training": fitted,
        "known_share": trainer.known_share(heldout),
        "parameters": sum(weight.numel() for weight in trainer.draft.parameters() if weight.requires_grad),
        "seconds": run.seconds,
    }
    with new_artefact(run, facts) as folder:
        trainer.draft.save(folder / DRAFT_FILE)


if __name__ == "__main__":
    main("ablations.dynatree.distil", DistilSpec, run, "Distil a draft from a target.")
