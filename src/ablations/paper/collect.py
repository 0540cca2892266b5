"""Rule `collect`: read every record of a study and compute all that the paper prints."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ablations.paper.summary import (
    DecodingProtocol,
    DecodingResult,
    Difference,
    Machine,
    PromptKind,
    Row,
    SdtpProtocol,
    SdtpResult,
    Summary,
)
from ablations.study.cli import one_line_errors
from ablations.study.contracts.dynatree import DecodeSample, DecodeSpec, DecodeTotals
from ablations.study.contracts.paper import Experiment, Method, PaperPlan, PaperSettings
from ablations.study.contracts.record import Record
from ablations.study.contracts.sdtp import EvaluateSpec, SdtpSample, SdtpTotals
from ablations.study.errors import UserError
from ablations.study.files import canonical_json, sha256_file, write_text
from ablations.study.record_io import read_contract, read_record
from ablations.study.statistics import (
    Comparison,
    Estimate,
    Measure,
    Resampling,
    compare,
    estimate,
    holm,
    log_speedup,
)
from ablations.study.verdicts import combine, judge_experiment, predictions

SdtpRecord = Record[EvaluateSpec, SdtpSample, SdtpTotals]
DecodeRecord = Record[DecodeSpec, DecodeSample, DecodeTotals]

# What a comparison's control sentence is about; budgets and references are reported elsewhere.
DECODING_COMPONENTS = ("drafter", "shape", "pruning")
SDTP_COMPONENTS = (
    "importance",
    "layers",
    "keep_ratios",
    "preserve",
    "positions",
    "mask",
    "propagation",
    "selection",
)


class Measured(NamedTuple):
    """An experiment, its record where there is one, and its paired results per document."""

    experiment: Experiment
    record: SdtpRecord | DecodeRecord | None
    values: dict[Measure, pd.Series]

    @property
    def completed(self) -> bool:
        """Whether there are results."""
        return self.record is not None and self.record.outcome.status == "ok"


def summarise(plan: PaperPlan) -> Summary:
    """Compute the summary of a study from its records.

    Raises:
        UserError: a record is damaged, is of another method, or has no or repeated documents.
    """
    arms = {item.id: _measure(item) for item in tqdm(plan.experiments, desc="records", mininterval=2)}
    comparisons = _compare_all(arms, plan.settings)
    return Summary(
        study=plan.study,
        settings=plan.settings,
        models=plan.models,
        texts=plan.texts,
        rows=tuple(_row(arm, arms, comparisons, plan.settings) for arm in arms.values()),
        comparisons=tuple(comparisons.values()),
        sdtp=_sdtp_protocol(arms),
        decoding=_decoding_protocol(arms, plan.settings),
        machines=_machines(arms),
    )


def _measure(experiment: Experiment) -> Measured:
    path = Path(experiment.record)
    if not path.is_file():
        return Measured(experiment, None, {})
    sdtp = experiment.method == "sdtp"
    record = read_record(path, SdtpRecord if sdtp else DecodeRecord)
    if record.outcome.status != "ok":
        return Measured(experiment, record, {})
    if not record.samples or record.totals is None:
        raise UserError(f"{path}: an experiment that ended well has samples and totals; delete the record")
    values = _sdtp_values(record) if sdtp else _decoding_values(record, path)
    for series in values.values():
        if series.index.has_duplicates:
            double = series.index[series.index.duplicated()][0]
            raise UserError(f"{path}: document '{double}' occurs twice; delete the record")
    return Measured(experiment, record, values)


def _sdtp_values(record: SdtpRecord) -> dict[Measure, pd.Series]:
    quality = pd.Series(
        [sample.nll - sample.reference_nll for sample in record.samples],
        index=[sample.document for sample in record.samples],
    )
    timed = [sample for sample in record.samples if sample.pairs]
    if not timed:
        return {"quality": quality}
    speed = pd.Series(
        [log_speedup(sample.pairs) for sample in timed], index=[sample.document for sample in timed]
    )
    return {"quality": quality, "speed": speed}


def _decoding_values(record: DecodeRecord, path: Path) -> dict[Measure, pd.Series]:
    names = [f"{sample.kind}/{sample.document}" for sample in record.samples]
    if record.spec.drafter is None:
        return {"speed": pd.Series(0.0, index=names)}
    if record.spec.reference != "autoregressive":
        raise UserError(f"{path}: a drafting arm must be measured beside autoregressive decoding")
    return {"speed": pd.Series([log_speedup(sample.pairs) for sample in record.samples], index=names)}


Key = tuple[str, str | None, Measure]


def _compare_all(arms: Mapping[str, Measured], settings: PaperSettings) -> dict[Key, Comparison]:
    """Every effect that the paper prints or a verdict needs; Holm runs per method and measure."""
    wanted = dict.fromkeys(key for arm in arms.values() for key in _keys(arm.experiment, settings))
    found: dict[Key, Comparison] = {}
    for name, versus, measure in tqdm(wanted, desc="comparisons", mininterval=2):
        arm, other = arms[name], arms.get(versus or "")
        if measure not in arm.values or (
            versus is not None and (other is None or measure not in other.values)
        ):
            continue
        comparison = compare(
            arm.values[measure],
            other.values[measure] if other is not None else None,
            _resampling(settings),
            names=(name, versus),
            measure=measure,
        )
        if comparison is not None:
            found[name, versus, measure] = comparison
    families: dict[tuple[Method, Measure], dict[Key, float]] = {}
    for key, comparison in found.items():
        family = families.setdefault((arms[key[0]].experiment.method, comparison.measure), {})
        family[key] = comparison.p
    adjusted = {key: p for family in families.values() for key, p in holm(family).items()}
    return {key: item.model_copy(update={"p_adjusted": adjusted[key]}) for key, item in found.items()}


def _keys(experiment: Experiment, settings: PaperSettings) -> list[Key]:
    keys: list[Key] = [
        (experiment.id, against, "quality" if aspect == "quality" else "speed")
        for aspect, _, against in predictions(experiment.expect, experiment.versus)
    ]
    if experiment.versus is not None:
        keys += [(experiment.id, experiment.versus, measure) for measure in ("quality", "speed")]
    if experiment.id in settings.backward and experiment.id != settings.full_method:
        keys.append((experiment.id, settings.full_method, "speed"))
    return keys


def _row(
    arm: Measured,
    arms: Mapping[str, Measured],
    comparisons: Mapping[Key, Comparison],
    settings: PaperSettings,
) -> Row:
    experiment, record = arm.experiment, arm.record
    status = "not_run" if record is None else record.outcome.status
    sdtp = _sdtp_result(record, arm, settings) if arm.completed and experiment.method == "sdtp" else None
    decoding = _decoding_result(record, arm, settings) if arm.completed and sdtp is None else None
    parts = judge_experiment(
        experiment.expect,
        status,
        experiment.versus,
        lambda against, measure: comparisons.get((experiment.id, against, measure)),
        settings.thresholds,
        None if decoding is None else decoding.matched + decoding.tied == decoding.prompts,
    )
    other = arms[experiment.versus].record if experiment.versus in arms else None
    both = record is not None and other is not None
    components = SDTP_COMPONENTS if experiment.method == "sdtp" else DECODING_COMPONENTS
    return Row(
        **experiment.model_dump(include=Row.model_fields.keys() & Experiment.model_fields.keys()),
        record_sha256=None if record is None else sha256_file(Path(experiment.record)),
        status=status,
        outcome=None if record is None else record.outcome,
        differences=_differences(record.spec, other.spec, components) if both else (),
        inputs_shared=record.digests.inputs == other.digests.inputs if both else None,
        sdtp=sdtp,
        decoding=decoding,
        parts=parts,
        verdict=combine(part.verdict for part in parts),
    )


def _differences(spec: Any, versus: Any, components: tuple[str, ...]) -> tuple[Difference, ...]:
    found = []
    for name in components:
        one, other = (item.model_dump(mode="json", include={name})[name] for item in (spec, versus))
        inner = isinstance(one, dict) and isinstance(other, dict)
        values = (
            {f"{name}.{key}": (other.get(key), one.get(key)) for key in one}
            if inner
            else {name: (other, one)}
        )
        found += [
            Difference(key=key, versus=before, arm=after)
            for key, (before, after) in values.items()
            if before != after
        ]
    return tuple(found)


def _resampling(settings: PaperSettings) -> Resampling:
    return Resampling(alpha=settings.thresholds.alpha, resamples=settings.resamples, seed=settings.seed)


def _mean_seconds(samples: list[Any], side: str) -> float:
    """Mean over samples of the geometric mean over repeats."""
    return float(
        np.mean([np.exp(np.mean([np.log(getattr(pair, side)) for pair in item.pairs])) for item in samples])
    )


def _sdtp_result(record: SdtpRecord, arm: Measured, settings: PaperSettings) -> SdtpResult:
    samples, totals = record.samples, record.totals
    timed = [sample for sample in samples if sample.pairs]
    return SdtpResult(
        nll=float(np.mean([sample.nll for sample in samples])),
        reference_nll=float(np.mean([sample.reference_nll for sample in samples])),
        quality=estimate(arm.values["quality"], _resampling(settings)),
        speedup=estimate(arm.values["speed"], _resampling(settings)) if timed else None,
        seconds=_mean_seconds(timed, "arm") if timed else None,
        reference_seconds=_mean_seconds(timed, "reference") if timed else None,
        keep_ratios=record.spec.keep_ratios,
        kept_share=float(np.mean([sample.living[-1] / sample.prompt_tokens for sample in samples])),
        flops_share=totals.prefill_flops / totals.reference_prefill_flops,
        kv_share=totals.kv_bytes / totals.reference_kv_bytes,
    )


def _decoding_result(record: DecodeRecord, arm: Measured, settings: PaperSettings) -> DecodingResult:
    samples = list(record.samples)
    autoregressive = record.spec.drafter is None
    values = arm.values["speed"]
    library = None
    if autoregressive and record.spec.reference == "generate":
        library = estimate(
            pd.Series([log_speedup(sample.pairs) for sample in samples], index=values.index),
            _resampling(settings),
        )
    # No forward at all: prefill's own token ended every sequence.
    forwards = max(1, sum(sample.target_forwards for sample in samples))
    tokens = sum(sample.new_tokens for sample in samples)
    drafting = sum(sample.draft_seconds for sample in samples)
    working = drafting + sum(sample.verify_seconds for sample in samples)
    by_definition = Estimate(value=0.0, low=None, high=None, n=len(samples), sd=None)
    return DecodingResult(
        autoregressive=autoregressive,
        speedup=by_definition if autoregressive else estimate(values, _resampling(settings)),
        library_speedup=library,
        throughput=tokens / (_mean_seconds(samples, "arm") * len(samples)),
        tokens_per_forward=1 + sum(sample.accepted for sample in samples) / forwards,
        nodes_per_round=sum(sample.drafted for sample in samples) / forwards,
        draft_share=drafting / working if working else None,
        prompts=len(samples),
        new_tokens=tokens,
        matched=sum(sample.matched for sample in samples),
        tied=sum(not sample.matched and sample.ties > 0 for sample in samples),
        repeated_4grams=float(np.mean([sample.repeated_4grams for sample in samples])),
    )


def _first(arms: Mapping[str, Measured], method: Method, preferred: str) -> Measured | None:
    """The preferred arm where it ran to the end, else the first that did, else the first with a record."""
    recorded = [arm for arm in arms.values() if arm.record is not None and arm.experiment.method == method]
    ranked = sorted(recorded, key=lambda arm: (not arm.completed, arm.experiment.id != preferred))
    return ranked[0] if ranked else None


def _sdtp_protocol(arms: Mapping[str, Measured]) -> SdtpProtocol | None:
    arm = _first(arms, "sdtp", "baseline")
    if arm is None:
        return None
    spec = arm.record.spec
    training = arm.record.totals.training if arm.record.totals else None
    return SdtpProtocol(
        documents=spec.windows.documents,
        prompt_tokens=spec.windows.prompt_tokens,
        continuation_tokens=spec.windows.continuation_tokens,
        timed_documents=min(spec.timing.documents, spec.windows.documents),
        repeats=spec.timing.repeats,
        warmup=spec.timing.warmup,
        decoder_layers=len(arm.record.samples[0].living) if arm.completed else 0,
        layers=spec.layers,
        keep_ratios=spec.keep_ratios,
        head=spec.preserve.head,
        tail=spec.preserve.tail,
        training=training,
        spearman=float(np.mean(training.spearman)) if training else None,
        spearman_untrained=float(np.mean(training.spearman_untrained)) if training else None,
    )


def _decoding_protocol(arms: Mapping[str, Measured], settings: PaperSettings) -> DecodingProtocol | None:
    arm = _first(arms, "dynatree", settings.full_method)
    if arm is None:
        return None
    spec, totals = arm.record.spec, arm.record.totals
    return DecodingProtocol(
        prompts=tuple(
            PromptKind(kind=item.kind, count=item.count, tokens=item.tokens) for item in spec.prompts
        ),
        new_tokens=spec.new_tokens,
        repeats=spec.repeats,
        warmup=spec.warmup,
        weight_layout=totals.weight_layout if totals else None,
        tie_margin=totals.tie_margin if totals else None,
    )


def _machines(arms: Mapping[str, Measured]) -> tuple[Machine, ...]:
    shared = (
        "host",
        "device",
        "device_type",
        "threads",
        "dtype",
        "platform",
        "versions",
        "git_commit",
        "git_dirty",
    )
    groups: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for arm in arms.values():
        if arm.record is None:
            continue
        facts = {"method": arm.experiment.method}
        facts |= arm.record.environment.model_dump(include=set(shared))
        groups.setdefault(canonical_json(facts), (facts, []))[1].append(arm.experiment.id)
    return tuple(Machine(**facts, experiments=tuple(names)) for facts, names in groups.values())


def main() -> None:
    """Command line of the rule `collect`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.collect",
        description="Read every record of a study and compute what the paper prints.",
        epilog="example: python -m ablations.paper.collect --plan results/stamp/collect.json"
        " --out results/summary.json",
    )
    parser.add_argument(
        "--plan", type=Path, required=True, help="which experiments there are, and the settings"
    )
    parser.add_argument("--out", type=Path, required=True, help="summary to write, atomically")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        summary = summarise(read_contract(arguments.plan, PaperPlan))
        write_text(arguments.out, summary.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
