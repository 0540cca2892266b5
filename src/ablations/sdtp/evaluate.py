"""Job `evaluate_sdtp`: quality and prefill speed of one pruning configuration on the held-out windows."""

import os
from collections.abc import Sequence
from statistics import fmean

from tqdm import tqdm

from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure, device_name, peak_memory_bytes
from ablations.lm.packing import pack_linears
from ablations.sdtp.arm import load_arm
from ablations.sdtp.cost import kv_bytes, prefill_flops
from ablations.sdtp.crash import ArmCrashError
from ablations.sdtp.evaluation import Evaluation
from ablations.sdtp.heldout import heldout_passkeys, heldout_windows, read_reference, require_positions
from ablations.sdtp.retrieval import Passkey
from ablations.study.contracts.record import Outcome, Record
from ablations.study.contracts.sdtp import EvaluateSpec, RetrievalProbe, SdtpSample, SdtpTotals
from ablations.study.errors import UserError
from ablations.study.job import Run, main
from ablations.study.record_io import digests_of, environment_of, write_record

SdtpRecord = Record[EvaluateSpec, SdtpSample, SdtpTotals]


def evaluate(run: Run[EvaluateSpec]) -> None:
    """Evaluate one pruning configuration and write its record, also when the arm crashes.

    Raises:
        UserError: an input is missing, corrupt or made for something else, the prompt is too short to prune,
            the model lacks a layer, or the spec combines what does not go together.
    """
    spec = run.spec
    _require_prompt(spec)
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
    arm = load_arm(run, lm)
    layout = pack_linears(lm)
    longest = max((key.prompt.shape[0] + key.answer.shape[0] for key in keys), default=0)
    capacity = max(longest, spec.windows.prompt_tokens + spec.windows.continuation_tokens)
    evaluation = Evaluation(arm, spec, reference, capacity)
    try:
        samples, probes = _measure(evaluation, windows, keys)
    except ArmCrashError as crash:
        # A machine that cannot run the unpruned prompt either is no finding about the arm.
        evaluation.dense_prefill(windows[0].ids[: spec.windows.prompt_tokens].to(device))
        outcome, samples, rows, totals = crash.outcome, [], None, None
    else:
        outcome = Outcome(status="ok")
        rows = [
            {"document": window.document, "kept": kept}
            for window, kept in zip(windows, evaluation.kept, strict=True)
        ]
        totals = _totals(evaluation, samples, probes, layout)
    record = SdtpRecord(
        label=run.label,
        module=run.job.module,
        spec=spec,
        outcome=outcome,
        samples=tuple(samples),
        totals=totals,
        environment=environment_of(
            run, device_name(device), device.type, spec.compute.threads, spec.compute.dtype
        ),
        digests=digests_of(run),
    )
    write_record(run.out, record, rows)


def _measure(
    evaluation: Evaluation, windows: Sequence[Window], keys: Sequence[Passkey]
) -> tuple[list[SdtpSample], list[RetrievalProbe]]:
    with tqdm(total=len(windows) + len(keys), desc="evaluate", mininterval=2) as bar:
        samples = []
        for number, window in enumerate(windows):
            samples.append(evaluation.window(number, window))
            bar.update()
        probes = []
        for number, key in enumerate(keys):
            probes.append(evaluation.passkey(number, key))
            bar.update()
    return samples, probes


def _totals(
    evaluation: Evaluation, samples: Sequence[SdtpSample], probes: Sequence[RetrievalProbe], layout: str
) -> SdtpTotals:
    """Deterministic costs, means over the windows, and what is known about the arm."""
    arm, cache = evaluation.arm, evaluation.cache
    dense = [evaluation.spec.windows.prompt_tokens] * arm.lm.num_layers
    return SdtpTotals(
        keep_ratios=arm.pruning.keep_ratios,
        prefill_flops=fmean(evaluation.flops),
        reference_prefill_flops=prefill_flops(arm.lm, dense),
        kv_bytes=fmean(kv_bytes(cache, sample.living) for sample in samples),
        reference_kv_bytes=kv_bytes(cache, dense),
        training=arm.training,
        calibration=arm.calibration,
        retrieval=tuple(probes),
        weight_layout=layout,
        cores=_cores(),
        peak_memory_bytes=peak_memory_bytes(arm.lm.device),
    )


def _cores() -> int:
    """CPU cores that this process may use, where the operating system can tell, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _require_prompt(spec: EvaluateSpec) -> None:
    protected = spec.preserve.head + spec.preserve.tail
    if spec.windows.prompt_tokens <= protected:
        raise UserError(
            f"windows.prompt_tokens: {spec.windows.prompt_tokens} is not more than preserve.head +"
            f" preserve.tail ({protected}), so nothing could be pruned; raise it or lower preserve"
        )


if __name__ == "__main__":
    main("ablations.sdtp.evaluate", EvaluateSpec, evaluate, __doc__)
