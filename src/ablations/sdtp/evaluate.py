"""Job `evaluate_sdtp`: quality and prefill speed of one pruning configuration on the held-out windows."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure, device_name, peak_memory_bytes
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import device_lock, timed_pairs
from ablations.sdtp.continuation import continuation_nll
from ablations.sdtp.cost import kv_bytes, prefill_flops
from ablations.sdtp.heldout import REFERENCE_FILE, heldout_windows, require_positions
from ablations.sdtp.prefill import Prefilled, Pruning, Scorer, prefill, random_scores
from ablations.sdtp.pruner import PRUNER_FILE, Pruner, load_pruner
from ablations.sdtp.selection import require_layers, stage_counts
from ablations.study.artefact import open_artefact
from ablations.study.contracts.record import Outcome, Record
from ablations.study.contracts.sdtp import (
    EvaluateSpec,
    Reference,
    SaliencySpec,
    SdtpSample,
    SdtpTotals,
    TimedPair,
    Training,
)
from ablations.study.errors import UserError
from ablations.study.job import Run, main
from ablations.study.record_io import digests_of, environment_of, read_contract, write_record

Result = TypeVar("Result")
SdtpRecord = Record[EvaluateSpec, SdtpSample, SdtpTotals]


class ArmCrashError(Exception):
    """The arm's own computation raised, which is a finding and not an error of the job."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        traceback = cause.__traceback__
        while traceback.tb_next is not None:
            traceback = traceback.tb_next
        frame = traceback.tb_frame
        self.outcome = Outcome(
            status="crashed",
            exception=type(cause).__name__,
            message=(str(cause).splitlines() or [""])[0],
            place=f"{frame.f_code.co_qualname} in {frame.f_globals['__name__']}",
        )


class Evaluation:
    """One pruning configuration, its model and its inputs."""

    def __init__(self, run: Run[EvaluateSpec]) -> None:
        spec = run.spec
        self.spec = spec
        _require_prompt(spec)
        self.device = configure(spec.compute)
        self.windows = heldout_windows(run, spec.windows)
        self.reference = _read_reference(run, self.windows)
        self.lm = load_model(run.job.path("model"), spec.compute, self.device)
        require_positions(self.lm, spec.windows)
        require_layers(spec.layers, self.lm.num_layers)
        self.pruner: Pruner | None = None
        self.training: Training | None = None
        if spec.importance == "learned":
            self.pruner, self.training = _load_pruner(run, self.lm)
        self.pruning = Pruning(spec.layers, spec.keep_ratios, spec.preserve, spec.positions)
        self.cache = self.lm.new_cache(spec.windows.prompt_tokens + spec.windows.continuation_tokens)

    def prompt(self, window: Window) -> Tensor:
        """Prompt of a window, on the device."""
        return window.ids[: self.spec.windows.prompt_tokens].to(self.device)

    def pruned_prefill(self, ids: Tensor, document: int) -> Prefilled:
        """The arm: a pruned prefill into the emptied cache; `document` seeds random scores."""
        self.cache.truncate(0)
        return _own(lambda: prefill(self.lm, ids, self.cache, self.pruning, self._scorer(document)))

    def dense_prefill(self, ids: Tensor) -> Prefilled:
        """The reference: the same code without stages, into the same cache."""
        self.cache.truncate(0)
        return prefill(self.lm, ids, self.cache)

    def quality(self, bar: tqdm) -> tuple[list[float], list[list[int]], tuple[int, ...]]:
        """NLL and surviving prompt indices per window, and the rows that entered each layer.

        Raises:
            ArmCrashError: the pruned prefill or its continuation raised.
            UserError: an NLL is NaN or infinite.
        """
        nlls, kept = [], []
        living: tuple[int, ...] = ()
        for index, window in enumerate(self.windows):
            prefilled = self.pruned_prefill(self.prompt(window), index)
            living = tuple(self.cache.lengths)
            ids = window.ids[self.spec.windows.prompt_tokens :].to(self.device)
            nll = _own(lambda p=prefilled, i=ids: continuation_nll(self.lm, p, self.cache, i).item())
            if not math.isfinite(nll):
                raise UserError(f"NLL of document '{window.document}' is {nll}; use compute.dtype float32")
            nlls.append(nll)
            kept.append(prefilled.kept.tolist())
            bar.update()
        return nlls, kept, living

    def timings(self, bar: tqdm) -> list[list[TimedPair]]:
        """Interleaved prefill times of the first windows.

        Raises:
            ArmCrashError: the pruned prefill raised.
        """
        timing = self.spec.timing
        found = []
        with device_lock(self.device):
            for index, window in enumerate(self.windows[: timing.documents]):
                ids = self.prompt(window)
                warmup = timing.warmup if index == 0 else 0
                pairs = []
                for (_, arm), (_, reference) in timed_pairs(
                    self.device,
                    partial(self.pruned_prefill, ids, index),
                    partial(self.dense_prefill, ids),
                    warmup + timing.repeats,
                    arm_first=(index + warmup) % 2 == 0,
                ):
                    pairs.append(TimedPair(arm=arm, reference=reference))
                    bar.update()
                found.append(pairs[warmup:])
        return found

    def totals(self, living: Sequence[int]) -> SdtpTotals:
        """Deterministic costs, given the rows that entered each layer."""
        tokens = self.spec.windows.prompt_tokens
        dense = [tokens] * self.lm.num_layers
        scored: list[int] = []
        width = 0
        if self.pruner is not None:
            scored = [tokens, *stage_counts(tokens, self.spec.keep_ratios, self.spec.preserve)[:-1]]
            width = self.pruner.width
        return SdtpTotals(
            prefill_flops=prefill_flops(self.lm, living, scored, width),
            reference_prefill_flops=prefill_flops(self.lm, dense),
            kv_bytes=kv_bytes(self.cache, living),
            reference_kv_bytes=kv_bytes(self.cache, dense),
            training=self.training,
            peak_memory_bytes=peak_memory_bytes(self.device),
        )

    def _scorer(self, document: int) -> Scorer:
        if self.pruner is not None:
            return self.pruner
        # A draw of its own for each document, the same whenever that document is run.
        generator = torch.Generator(self.device).manual_seed((self.spec.seed * 1_000_003 + document) % 2**63)
        return random_scores(generator)


def _own(work: Callable[[], Result]) -> Result:
    """Run a part of the arm's own computation.

    Raises:
        ArmCrashError: it raised; running out of memory is no finding and passes through.
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, ValueError) as error:
        # On the CPU torch has no exception type of its own for this.
        if "DefaultCPUAllocator" in str(error):
            raise MemoryError from error
        raise ArmCrashError(error) from error


def _require_prompt(spec: EvaluateSpec) -> None:
    protected = spec.preserve.head + spec.preserve.tail
    if spec.windows.prompt_tokens <= protected:
        raise UserError(
            f"windows.prompt_tokens: {spec.windows.prompt_tokens} is not more than preserve.head +"
            f" preserve.tail ({protected}), so nothing could be pruned; raise it or lower preserve"
        )


def _read_reference(run: Run[EvaluateSpec], windows: Sequence[Window]) -> list[float]:
    """NLL of the unpruned model on the same windows, in order."""
    path = run.job.path("reference")
    folder, _ = open_artefact(path)
    rows = read_contract(folder / REFERENCE_FILE, Reference).rows
    if [row.document for row in rows] != [window.document for window in windows]:
        raise UserError(f"{path}: made for other windows than this evaluation; run snakemake to rebuild it")
    return [row.nll for row in rows]


def _load_pruner(run: Run[EvaluateSpec], lm: LayeredLM) -> tuple[Pruner, Training]:
    path = run.job.path("pruner")
    folder, manifest = open_artefact(path)
    pruner, trained = load_pruner(folder / PRUNER_FILE, lm.device)
    if not set(run.spec.layers) <= set(trained.layers):
        raise UserError(
            f"{path}: a pruner for layers {list(trained.layers)}, but 'schedule.layers' is"
            f" {list(run.spec.layers)}; let snakemake train one for these layers"
        )
    stages = [trained.layers.index(layer) for layer in run.spec.layers]
    training = Training(
        pruner=trained,
        saliency=SaliencySpec.model_validate(manifest.facts["saliency"]),
        spearman=manifest.facts["spearman"],
        spearman_untrained=manifest.facts["spearman_untrained"],
    )
    return pruner.of_stages(stages), training


def evaluate(run: Run[EvaluateSpec]) -> None:
    """Evaluate one pruning configuration and write its record, also when the arm crashes.

    Raises:
        UserError: an input is missing, corrupt or made for something else, the prompt is too short to prune,
            or the model lacks a layer.
    """
    spec = run.spec
    evaluation = Evaluation(run)
    timed = min(spec.timing.documents, len(evaluation.windows))
    samples: list[SdtpSample] = []
    rows: list[dict] | None = None
    totals = None
    outcome = Outcome(status="ok")
    units = len(evaluation.windows) + spec.timing.warmup + timed * spec.timing.repeats
    with tqdm(total=units, desc="evaluate", mininterval=2) as bar:
        try:
            nlls, kept, living = evaluation.quality(bar)
            pairs = evaluation.timings(bar)
        except ArmCrashError as crash:
            # A machine that cannot run the unpruned prompt either is no finding about the arm.
            evaluation.dense_prefill(evaluation.prompt(evaluation.windows[0]))
            outcome = crash.outcome
        else:
            totals = evaluation.totals(living)
            pairs += [[]] * (len(nlls) - timed)
            for window, nll, reference, times in zip(
                evaluation.windows, nlls, evaluation.reference, pairs, strict=True
            ):
                samples.append(
                    SdtpSample(
                        document=window.document,
                        prompt_tokens=spec.windows.prompt_tokens,
                        nll=nll,
                        reference_nll=reference,
                        living=living,
                        pairs=tuple(times),
                    )
                )
            rows = [
                {"document": window.document, "kept": indices}
                for window, indices in zip(evaluation.windows, kept, strict=True)
            ]
    device = evaluation.device
    environment = environment_of(
        run, device_name(device), device.type, spec.compute.threads, spec.compute.dtype
    )
    record = SdtpRecord(
        label=run.label,
        module=run.job.module,
        spec=spec,
        outcome=outcome,
        samples=tuple(samples),
        totals=totals,
        environment=environment,
        digests=digests_of(run),
    )
    write_record(run.out, record, rows)


if __name__ == "__main__":
    main("ablations.sdtp.evaluate", EvaluateSpec, evaluate, __doc__)
