"""Numbers of the SDTP experiments, of scorers and of sweeps."""

from collections.abc import Iterator

from ablations.paper.formatting import (
    average,
    average_interval,
    count,
    factor,
    factor_interval,
    nats,
    nats_interval,
    operations,
    percent,
    percent_interval,
    ratio_percent,
    ratio_percent_interval,
    seconds,
    signed_average,
    signed_nats,
    size,
)
from ablations.paper.quantities.quantity import LOG_SPEEDUP, Measured, Quantity, quantities, quantity
from ablations.paper.results.sdtp import PipelineResult
from ablations.paper.summary import Row, Summary

RESULT = (
    Measured("nll", "samples[].nll", "nats per token", nats),
    Measured("reference_nll", "samples[].reference_nll", "nats per token", nats),
    Measured(
        "quality",
        "samples[].nll - samples[].reference_nll",
        "nats per token",
        signed_nats,
        nats_interval,
        "added_nll",
    ),
    Measured("agreement", "samples[].agreement", "share", percent, percent_interval),
    Measured("kl", "samples[].kl", "nats per token", nats, nats_interval),
    Measured("kl_seed_sd", "samples[].kl, between records", "nats per token", nats),
    Measured("answer_nll", "totals.retrieval[].nll", "nats per token", nats, nats_interval),
    Measured("reference_answer_nll", "totals.retrieval[].reference_nll", "nats per token", nats),
    Measured("speedup", LOG_SPEEDUP, "log ratio", factor, factor_interval),
    Measured(
        "of_ideal",
        f"{LOG_SPEEDUP}, + log(totals.prefill_flops / totals.reference_prefill_flops)",
        "log ratio",
        ratio_percent,
        ratio_percent_interval,
        "bound",
    ),
    Measured("seconds", "samples[].pairs[].arm, median over pairs", "seconds", seconds),
    Measured("reference_seconds", "samples[].pairs[].reference, median over pairs", "seconds", seconds),
    Measured("flops", "totals.prefill_flops", "operations", operations),
    Measured("flops_share", "totals.prefill_flops / totals.reference_prefill_flops", "share", percent),
    Measured("kept", "samples[].living[-1]", "tokens", count),
    Measured("kept_share", "samples[].living[-1] / samples[].prompt_tokens", "share", percent),
    Measured("kv_bytes", "totals.kv_bytes", "bytes", size),
    Measured("kv_share", "totals.kv_bytes / totals.reference_kv_bytes", "share", percent),
    Measured("peak_memory_bytes", "totals.peak_memory_bytes", "bytes", size),
)

RETRIEVAL = (
    Measured("hits", "totals.retrieval[].hit", "prompts", count),
    Measured("reference_hits", "totals.retrieval[].reference_hit", "prompts", count),
)

RANKING = (
    Measured("spearman", "totals.training.ranking[].spearman", "correlation", average, average_interval),
    Measured(
        "spearman_untrained",
        "totals.training.ranking_untrained[].spearman",
        "correlation",
        average,
        average_interval,
    ),
    Measured("ndcg", "totals.training.ranking[].ndcg", "share", average),
    Measured("ndcg_untrained", "totals.training.ranking_untrained[].ndcg", "share", average),
    Measured("overlap", "totals.training.ranking[].overlap", "share", percent),
    Measured("overlap_untrained", "totals.training.ranking_untrained[].overlap", "share", percent),
)
RANKING_GAIN = Measured(
    "ranking_gain",
    "totals.training.ranking[].spearman - totals.training.ranking_untrained[].spearman",
    "correlation",
    signed_average,
    average_interval,
)
RANKING_EFFECT = Measured(
    "ranking_effect",
    "totals.training.ranking[].spearman, minus the same of versus",
    "correlation",
    signed_average,
    average_interval,
)

SWEEP = (
    Measured("speedup", "log(points[].prefill[].reference / points[].prefill[].arm), median over pairs",
             "log ratio", factor, factor_interval, "prefill"),
    Measured("end_to_end", "log(points[].end_to_end[].reference / points[].end_to_end[].arm), median over"
             " pairs", "log ratio", factor, factor_interval),
    Measured("seconds", "points[].prefill[].arm, median over pairs", "seconds", seconds),
    Measured("reference_seconds", "points[].prefill[].reference, median over pairs", "seconds", seconds),
    Measured("ideal", "log(points[].reference_flops / points[].flops)", "log ratio", factor),
    Measured("kv_share", "points[].kv_bytes / points[].reference_kv_bytes", "share", percent),
    Measured("overhead", "points[].overhead", "share", percent),
    Measured("library", "log(library[].reference / library[].arm), median over pairs", "log ratio", factor),
)  # fmt: skip


def sdtp_quantities(row: Row) -> Iterator[Quantity]:
    """Numbers of a pruning configuration that ran."""
    result = row.sdtp
    yield from quantities(row.id, RESULT, result, row.files)
    for found in result.retrieval:
        if found.kind is None:
            yield from quantities(row.id, RETRIEVAL, found, row.files)
        else:
            yield from quantities(f"{row.id}.{found.kind}", RETRIEVAL[:1], found, row.files)
    if result.pipeline is not None and result.pipeline.boundary_bytes:
        yield from _traffic(row, result.pipeline)


def _traffic(row: Row, pipeline: PipelineResult) -> Iterator[Quantity]:
    sent, unpruned = sum(pipeline.boundary_bytes), sum(pipeline.reference_boundary_bytes)
    field = "samples[].boundary_bytes / samples[].reference_boundary_bytes"
    yield quantity(row.id, Measured("sent_share", field, "share", percent), sent / unpruned, row.files)
    for name, amounts in (
        ("boundary_bytes", pipeline.boundary_bytes),
        ("reference_boundary_bytes", pipeline.reference_boundary_bytes),
    ):
        for place, amount in enumerate(amounts):
            item = Measured(name, f"samples[].{name}[{place}]", "bytes", size)
            yield quantity(f"{row.id}.{place}", item, amount, row.files)


def ranking_quantities(summary: Summary) -> Iterator[Quantity]:
    """Numbers of trained scorers, under the first experiment that uses each."""
    for scorer in summary.ranking:
        name = scorer.experiments[0]
        files = summary.row(name).files
        yield from quantities(name, RANKING, scorer, files)
        yield quantity(name, RANKING_GAIN, scorer.gain.estimate, files)
        if scorer.effect is not None:
            versus = summary.row(scorer.effect.versus).files
            yield quantity(name, RANKING_EFFECT, scorer.effect.estimate, files, versus)


def sweep_quantities(summary: Summary) -> Iterator[Quantity]:
    """Numbers of each prompt length and keep ratio."""
    for point in summary.sweeps:
        yield from quantities(f"sweep.{point.tokens}.{point.keep_ratio:g}", SWEEP, point, [point.file])
