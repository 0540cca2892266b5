"""Job `evaluate_sdtp`: quality and prefill speed of one pruning configuration on the held-out windows.

The prompts of one experiment can be split into shards (``--shard 2-of-4``), one job each; a last job joins
their records.
"""

from collections.abc import Sequence

from tqdm import tqdm

from ablations.core.errors import UserError
from ablations.core.job import Run, main
from ablations.core.record import Outcome
from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure, peak_memory_bytes
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import load_arm
from ablations.sdtp.evaluation.crash import ArmCrashError
from ablations.sdtp.evaluation.heldout import (
    heldout_passkeys,
    heldout_windows,
    read_reference,
    require_positions,
)
from ablations.sdtp.evaluation.report import totals_of, write_report
from ablations.sdtp.evaluation.retrieval import Passkey
from ablations.sdtp.evaluation.shards import WHOLE, Shard, add_arguments, join
from ablations.sdtp.evaluation.windows import Evaluation
from ablations.specs.sdtp.evaluate import EvaluateSpec, RetrievalProbe, SdtpSample


def evaluate_or_join(run: Run[EvaluateSpec]) -> None:
    """Evaluate the shard that the arguments name, or join the records of all shards."""
    if run.arguments.join:
        join(run, run.arguments.join)
    else:
        evaluate(run, run.arguments.shard)


def evaluate(run: Run[EvaluateSpec], shard: Shard = WHOLE) -> None:
    """Evaluate one pruning configuration and write its record, also when the arm crashes.

    Args:
        run: The job.
        shard: Shard of the prompts to evaluate.

    Raises:
        UserError: an input is missing, corrupt or made for another spec, the spec is one of several ranks,
            the model lacks a layer or positions, or the NLL is not finite.
    """
    spec = run.spec
    if spec.pipeline is not None:
        raise UserError("pipeline: several ranks are for ablations.sdtp.evaluate_pipeline; run that job")
    device = configure(spec.compute)
    windows = heldout_windows(run, spec.windows)
    keys = heldout_passkeys(run, spec.retrieval)
    reference = read_reference(run.job.path("reference"), windows)
    if len(reference.probes) != len(keys):
        raise UserError(
            f"{run.job.path('reference')}: made for other passkeys than this evaluation;"
            " run snakemake to rebuild it"
        )
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_positions(lm, spec.windows)
    if reference.states[0].dtype != lm.dtype:
        raise UserError(
            f"{run.job.path('reference')}: computed in {reference.states[0].dtype}, but compute.dtype is"
            f" {spec.compute.dtype}; run snakemake to rebuild it"
        )
    arm = load_arm(run, lm)
    layout = pack_linears(lm)
    longest = max((key.prompt.shape[0] + key.answer.shape[0] for key in keys), default=0)
    capacity = max(longest, spec.windows.prompt_tokens + spec.windows.continuation_tokens)
    evaluation = Evaluation(arm, spec, reference, capacity)
    try:
        samples, probes = _measure(evaluation, shard.take(windows), shard.take(keys))
    except ArmCrashError as crash:
        # Raises if the machine cannot run the unpruned prompt either: then the crash is not the arm's.
        evaluation.dense_prefill(windows[0].ids[: spec.windows.prompt_tokens].to(device))
        outcome, samples, kept, totals = crash.outcome, [], [], None
    else:
        outcome = Outcome(status="ok")
        kept = evaluation.kept
        totals = totals_of(
            arm, evaluation.cache, samples, evaluation.flops, probes, layout, peak_memory_bytes(device)
        )
    write_report(run, device, outcome, samples, kept, totals)


def _measure(
    evaluation: Evaluation, windows: Sequence[tuple[int, Window]], keys: Sequence[tuple[int, Passkey]]
) -> tuple[list[SdtpSample], list[RetrievalProbe]]:
    with tqdm(total=len(windows) + len(keys), desc="evaluate", mininterval=2) as bar:
        samples = []
        for number, window in windows:
            samples.append(evaluation.window(number, window))
            bar.update()
        probes = []
        for number, key in keys:
            probes.append(evaluation.passkey(number, key))
            bar.update()
    return samples, probes


if __name__ == "__main__":
    main("ablations.sdtp.evaluate", EvaluateSpec, evaluate_or_join, __doc__, add_arguments)
