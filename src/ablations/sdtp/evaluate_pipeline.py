"""Job `evaluate_pipeline`: one pruning configuration over several ranks; quality, traffic and prefill speed.

Prompts pass through the ranks one at a time, each in one piece (no micro-batches). Bytes are those of hidden
states; the prompt indices that are sent with them, eight bytes a token, are not counted. Peak memory is that
of the rank that uses most. Passkeys are not asked for: ranks change where a prefill runs, not its result.
"""

import sys
from collections.abc import Sequence

from tqdm import tqdm

from ablations.core.artefact import Manifest
from ablations.core.errors import UserError
from ablations.core.job import Run, main
from ablations.core.record import Outcome, read_contract
from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import peak_memory_bytes
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import load_arm
from ablations.sdtp.evaluation.heldout import heldout_windows, read_reference, require_positions
from ablations.sdtp.evaluation.report import totals_of, write_report
from ablations.sdtp.pipeline.evaluation import PipelineEvaluation, RankSample
from ablations.sdtp.pipeline.group import Member, gather
from ablations.sdtp.pipeline.launcher import launch
from ablations.sdtp.pipeline.partition import partition
from ablations.sdtp.pruned.cost import planned_rows
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.evaluate import EvaluateSpec, SdtpSample


def evaluate_pipeline(run: Run[EvaluateSpec]) -> None:
    """Evaluate one pruning configuration over ranks and write its record.

    Raises:
        UserError: an input is missing, corrupt or made for another spec, the spec is one of a single process,
            two ranks share a GPU, or a rank failed.
    """
    spec = run.spec
    if spec.pipeline is None:
        raise UserError("pipeline: null; use `python -m ablations.sdtp.evaluate` for a single process")
    # Checked before the ranks start, since each of them takes seconds to load the model.
    layers = read_contract(run.job.path("model"), Manifest).facts["layers"]
    require_layers(spec.layers, layers)
    partition(layers, spec.layers, spec.pipeline.ranks, spec.pipeline.prune)
    launch(evaluate_rank, run)


def evaluate_rank(run: Run[EvaluateSpec], member: Member) -> None:
    """Evaluate the windows on one rank; rank 0 writes the record."""
    spec = run.spec
    windows = heldout_windows(run, spec.windows)
    reference = read_reference(run.job.path("reference"), windows)
    lm = load_model(run.job.path("model"), spec.compute, member.device)
    require_positions(lm, spec.windows)
    arm = load_arm(run, lm)
    layout = pack_linears(lm)
    evaluation = PipelineEvaluation(member, arm, spec, reference)
    if member.rank == 0 and member.core_shortage and spec.timing is not None:
        message = f"no times, only bytes: {member.core_shortage}; use a larger machine"
        print(message, file=sys.stderr, flush=True)
    first = windows[0].ids[: spec.windows.prompt_tokens].to(member.device)
    dense_bytes = evaluation.dense_prefill(first).sent_bytes
    bar = tqdm(windows, desc="evaluate over ranks", mininterval=2, disable=member.rank > 0)
    rank_samples = [evaluation.window(number, window) for number, window in enumerate(bar)]
    results = gather((rank_samples, dense_bytes, peak_memory_bytes(member.device)))
    if member.rank:
        return
    by_rank, dense_sent, peaks = zip(*results, strict=True)
    by_window = list(zip(*by_rank, strict=True))
    samples = [
        _sample(window, row.nll, ranks, dense_sent[:-1], spec)
        for window, row, ranks in zip(windows, reference.rows, by_window, strict=True)
    ]
    tokens = spec.windows.prompt_tokens
    _, scored = planned_rows(arm.pruning, tokens, lm.num_layers)
    flops = [arm.flops(tokens, sample.living, scored) for sample in samples]
    totals = totals_of(arm, evaluation.cache, samples, flops, (), layout, max(peaks))
    kept = [ranks[-1].kept for ranks in by_window]
    write_report(run, member.device, Outcome(status="ok"), samples, kept, totals)


def _sample(
    window: Window,
    reference_nll: float,
    ranks: Sequence[RankSample],
    reference_bytes: Sequence[int],
    spec: EvaluateSpec,
) -> SdtpSample:
    """The sample of one window, from the samples of all ranks."""
    first, last = ranks[0], ranks[-1]
    return SdtpSample(
        document=window.document,
        prompt_tokens=spec.windows.prompt_tokens,
        nll=last.quality.nll,
        reference_nll=reference_nll,
        agreement=last.quality.agreement,
        kl=last.quality.kl,
        living=tuple(rows for rank in ranks for rows in rank.living),
        # The first rank's times: a prompt enters there, and the barrier after it waits for the last rank.
        pairs=first.pairs,
        boundary_bytes=tuple(rank.sent_bytes for rank in ranks[:-1]),
        reference_boundary_bytes=tuple(reference_bytes),
        ranks=tuple(rank.time for rank in ranks if rank.time is not None),
    )


if __name__ == "__main__":
    main("ablations.sdtp.evaluate_pipeline", EvaluateSpec, evaluate_pipeline, __doc__)
