"""Rule `benchmark_table`: the record of the decoding benchmark, summed up and as a Markdown table."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ablations.core.errors import one_line_errors, require_out
from ablations.core.files import write_text
from ablations.core.record import Record, read_contract, read_record
from ablations.evidence.inputs import BenchmarkInput
from ablations.evidence.statistics import median_seconds, tokens_per_forward
from ablations.paper.benchmark_rates import Rates
from ablations.paper.benchmark_table import markdown
from ablations.paper.results.benchmark import ArmResult, DecodingBenchmark, Family, TimeSplit
from ablations.specs.dynatree.benchmark import (
    ArmRun,
    BenchmarkSample,
    BenchmarkSpec,
    Greedy,
    TransformersArm,
    TransformersAssisted,
    TransformersLookup,
)
from ablations.specs.dynatree.exactness import DecodeTotals

BenchmarkRecord = Record[BenchmarkSpec, BenchmarkSample, DecodeTotals]

NEURAL = ("neural", "distilled", "hybrid")
"""Kinds of drafters that a network drafts in, alone or with n-grams."""


def summarise(plan: BenchmarkInput, record: BenchmarkRecord) -> DecodingBenchmark:
    """Everything that ``results/benchmark/decoding.json`` says."""
    record = _called(record, plan.arms)
    spec = record.spec
    rates = Rates(record.samples, plan.alpha)
    families = _families(spec)
    greedy = next(name for name, setting in spec.transformers.items() if isinstance(setting, Greedy))
    autoregressive = [name for name, family in families.items() if family == "autoregressive"]
    best_ar = rates.fastest([*autoregressive, greedy], greedy)
    best_hf = rates.fastest([name for name, family in families.items() if family == "transformers"], greedy)
    best = rates.fastest(plan.best_of, greedy) if plan.best_of else None
    neural = [name for name, arm in spec.arms.items() if arm.drafter and arm.drafter.kind in NEURAL]
    titles = plan.titles | {name: _title(setting) for name, setting in spec.transformers.items()}
    return DecodingBenchmark(
        speedup_over_best_ar=rates.speedup(best, best_ar) if best else None,
        speedup_over_best_hf=rates.speedup(best, best_hf) if best else None,
        neural_speedup_over_best_ar=(
            rates.speedup(rates.fastest(neural, best_ar), best_ar) if neural else None
        ),
        study=plan.study,
        record=plan.record,
        best_ar=best_ar,
        best_hf=best_hf,
        best_of=plan.best_of,
        notes=tuple(_notes(spec, families)),
        prompts=pd.Series([sample.kind for sample in record.samples]).value_counts(sort=False).to_dict(),
        new_tokens=spec.new_tokens,
        repeats=spec.repeats,
        tie_margin=record.totals.tie_margin,
        weight_layout=record.totals.weight_layout,
        repeated_4grams=float(np.mean([sample.repeated_4grams for sample in record.samples])),
        arms=tuple(
            _arm(name, titles[name], family, record.samples, rates, best_ar, best_hf)
            for name, family in families.items()
        ),
        environment=record.environment,
    )


def _called(record: BenchmarkRecord, experiments: Mapping[str, str]) -> BenchmarkRecord:
    """The record with its arms called as the study calls them now, in its order."""
    arms = {name: record.spec.arms[arm] for arm, name in experiments.items()}
    samples = tuple(
        sample.model_copy(
            update={"runs": {experiments.get(name, name): run for name, run in sample.runs.items()}}
        )
        for sample in record.samples
    )
    return record.model_copy(
        update={"spec": record.spec.model_copy(update={"arms": arms}), "samples": samples}
    )


def _arm(
    name: str,
    title: str,
    family: Family,
    samples: Iterable[BenchmarkSample],
    rates: Rates,
    best_ar: str,
    best_hf: str,
) -> ArmResult:
    runs = [sample.runs[name] for sample in samples if name in sample.runs]
    tokens = sum(run.new_tokens for run in runs)
    return ArmResult(
        id=name,
        title=title,
        family=family,
        tokens_per_second=tokens / sum(median_seconds(run.seconds) for run in runs),
        over_best_ar=rates.speedup(name, best_ar),
        over_best_hf=rates.speedup(name, best_hf),
        tokens_per_forward=tokens_per_forward(
            sum(run.accepted for run in runs), sum(run.target_forwards for run in runs)
        ),
        time=None if family == "transformers" else _split(runs),
        prompts=len(runs),
        identical=sum(run.matched for run in runs),
        ties=sum(run.ties for run in runs),
    )


def _split(runs: Iterable[ArmRun]) -> TimeSplit:
    parts = pd.DataFrame(
        {
            "first_token": run.first_seconds,
            "draft": run.draft_seconds,
            "verify": run.verify_seconds,
            "bookkeeping": run.bookkeeping_seconds,
        }
        for run in runs
    ).sum()
    return TimeSplit.model_validate((parts / parts.sum()).to_dict())


def _families(spec: BenchmarkSpec) -> dict[str, Family]:
    """Arms that were run, the study's first."""
    own: dict[str, Family] = {
        name: "drafting" if arm.drafter else "autoregressive" for name, arm in spec.arms.items()
    }
    ran: dict[str, Family] = {
        name: "transformers"
        for name, setting in spec.transformers.items()
        if spec.assistant is not None or not isinstance(setting, TransformersAssisted)
    }
    return own | ran


def _notes(spec: BenchmarkSpec, families: Mapping[str, Family]) -> Iterable[str]:
    yield "The fastest of several arms was chosen on the same prompts that it is reported on."
    absent = [name for name in spec.transformers if name not in families]
    if absent:
        yield (
            f"Assisted generation ({', '.join(absent)}) was not run: no drafter of the study is a causal LM"
            " that `transformers` runs by itself (n-grams are no network, and a distilled draft reads the"
            " target's hidden states)."
        )
    most = max(chosen.count for chosen in spec.prompts)
    fewer = [f"{name} {arm.prompts}" for name, arm in spec.arms.items() if (arm.prompts or most) < most]
    if fewer:
        yield f"Slow arms decoded only the first prompts of each kind: {', '.join(fewer)}."


def _title(setting: TransformersArm) -> str:
    match setting:
        case Greedy():
            return "`generate`"
        case TransformersLookup():
            return (
                f"`generate`, prompt lookup: {setting.prompt_lookup_num_tokens} tokens,"
                f" n-grams up to {setting.max_matching_ngram_size}"
            )
        case TransformersAssisted():
            return (
                f"`generate`, assisted: {setting.num_assistant_tokens} tokens"
                f" ({setting.num_assistant_tokens_schedule}),"
                f" confidence {setting.assistant_confidence_threshold:g}"
            )


def main() -> None:
    """Command line of the rule `benchmark_table`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.benchmark",
        description="Sum the decoding benchmark up.",
        epilog="example: python -m ablations.paper.benchmark --plan results/stamp/benchmark_table.json"
        " --out results/benchmark/decoding.json --table results/benchmark/decoding.md",
    )
    parser.add_argument("--plan", type=Path, required=True, help="which record, and how it is summed up")
    parser.add_argument("--out", type=Path, required=True, help="summary to write, atomically")
    parser.add_argument("--table", type=Path, required=True, help="Markdown table to write, atomically")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        require_out(arguments.table, "--table")
        plan = read_contract(arguments.plan, BenchmarkInput)
        found = summarise(plan, read_record(Path(plan.record), BenchmarkRecord))
        write_text(arguments.out, found.model_dump_json(indent=1) + "\n")
        write_text(arguments.table, markdown(found))


if __name__ == "__main__":
    main()
