"""Job `evaluate_pipeline`: one pruning configuration over several ranks; quality, traffic and prefill speed.

A prompt goes through the ranks in one piece, one prompt at a time (no micro-batches). Bytes are those of
hidden states; the prompt indices that go with them, eight bytes a token, are not counted. Peak memory is that
of the rank with the most. Passkeys are not asked for: ranks change where a prefill runs, not what comes out.
"""

import sys
from collections.abc import Sequence

from tqdm import tqdm

from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import peak_memory_bytes
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import load_arm, require_prompt
from ablations.sdtp.evaluation.heldout import heldout_windows, read_reference, require_positions
from ablations.sdtp.evaluation.report import totals_of, write_report
from ablations.sdtp.pipeline.evaluation import PipelineEvaluation, Share
from ablations.sdtp.pipeline.group import Member, gather
from ablations.sdtp.pipeline.launcher import launch
from ablations.sdtp.pipeline.partition import partition
from ablations.sdtp.pruned.cost import planned_rows
from ablations.sdtp.pruned.selection import require_layers
from ablations.study.artefact import Manifest
from ablations.study.contracts.record import Outcome
from ablations.study.contracts.sdtp import EvaluateSpec, SdtpSample
from ablations.study.errors import UserError
from ablations.study.job import Run, main
from ablations.study.record_io import read_contract

SUPPORTED = {
    "importance": ("learned", "random", "recent", "hidden_norm"),
    "mask": ("hard",),
    "propagation": ("cascade",),
    "selection": ("top_k",),
    "positions": ("original", "packed"),
}


def evaluate_pipeline(run: Run[EvaluateSpec]) -> None:
    """Evaluate one pruning configuration over ranks and write its record.

    Raises:
        UserError: an input is missing, corrupt or made for something else, the spec asks for what ranks do
            not support, there are fewer GPUs than ranks, or a rank failed.
    """
    spec = run.spec
    _require_supported(spec)
    require_prompt(spec)
    # Before the ranks start: each of them takes seconds to load the model.
    layers = read_contract(run.job.path("model"), Manifest).facts["layers"]
    require_layers(spec.layers, layers)
    partition(layers, spec.layers, spec.pipeline.ranks, spec.pipeline.prune)
    launch(evaluate_rank, run)


def evaluate_rank(run: Run[EvaluateSpec], member: Member) -> None:
    """Body of each rank; the first one writes the record."""
    spec = run.spec
    windows = heldout_windows(run, spec.windows)
    reference = read_reference(run.job.path("reference"), windows)
    lm = load_model(run.job.path("model"), spec.compute, member.device)
    require_positions(lm, spec.windows)
    arm = load_arm(run, lm)
    layout = pack_linears(lm)
    evaluation = PipelineEvaluation(member, arm, spec, reference)
    if member.rank == 0 and member.crowded and spec.timing is not None:
        print(f"no times, only bytes: {member.crowded}; use a larger machine", file=sys.stderr, flush=True)
    first = windows[0].ids[: spec.windows.prompt_tokens].to(member.device)
    dense_bytes = evaluation.dense_prefill(first).sent_bytes
    bar = tqdm(windows, desc="evaluate over ranks", mininterval=2, disable=member.rank > 0)
    shares = [evaluation.window(number, window) for number, window in enumerate(bar)]
    ranks = gather((shares, dense_bytes, peak_memory_bytes(member.device)))
    if member.rank:
        return
    by_rank, dense_sent, peaks = zip(*ranks, strict=True)
    by_window = list(zip(*by_rank, strict=True))
    samples = [
        _sample(window, row.nll, parts, dense_sent[:-1], spec)
        for window, row, parts in zip(windows, reference.rows, by_window, strict=True)
    ]
    tokens = spec.windows.prompt_tokens
    _, scored = planned_rows(arm.pruning, tokens, lm.num_layers)
    flops = [arm.flops(tokens, sample.living, scored) for sample in samples]
    totals = totals_of(arm, evaluation.cache, samples, flops, (), layout, max(peaks))
    kept = [parts[-1].kept for parts in by_window]
    write_report(run, member.device, Outcome(status="ok"), samples, kept, totals)


def _sample(
    window: Window,
    reference_nll: float,
    parts: Sequence[Share],
    reference_bytes: Sequence[int],
    spec: EvaluateSpec,
) -> SdtpSample:
    """One window, put together from the shares of all ranks."""
    first, last = parts[0], parts[-1]
    return SdtpSample(
        document=window.document,
        prompt_tokens=spec.windows.prompt_tokens,
        nll=last.quality.nll,
        reference_nll=reference_nll,
        agreement=last.quality.agreement,
        kl=last.quality.kl,
        living=tuple(rows for part in parts for rows in part.living),
        # The first rank drives: a prompt enters there, and its barrier ends with the last rank's work.
        pairs=first.pairs,
        boundary_bytes=tuple(part.sent_bytes for part in parts[:-1]),
        reference_boundary_bytes=tuple(reference_bytes),
        ranks=tuple(part.time for part in parts if part.time is not None),
    )


def _require_supported(spec: EvaluateSpec) -> None:
    """Check that ranks can run the arm.

    Raises:
        UserError: they cannot.
    """
    if spec.pipeline is None:
        raise UserError("pipeline: null; use `python -m ablations.sdtp.evaluate` for a single process")
    for key, values in SUPPORTED.items():
        value = getattr(spec, key)
        if value not in values:
            raise UserError(
                f"{key}: '{value}' does not run over pipeline ranks; use {' or '.join(values)},"
                " or set 'pipeline' to null"
            )
    if spec.retrieval is not None:
        raise UserError("retrieval: passkeys are not asked for over pipeline ranks; set it to null")


if __name__ == "__main__":
    main("ablations.sdtp.evaluate_pipeline", EvaluateSpec, evaluate_pipeline, __doc__)
