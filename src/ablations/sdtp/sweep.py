"""Jobs `sweep`: prefill and end-to-end times at several prompt lengths, each for several keep ratios."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.core.job import JobFile, Run
from ablations.core.panel import Panel, main
from ablations.core.record import digests_of, environment_of
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus
from ablations.lm.device import configure, device_name
from ablations.lm.finite import NOT_FINITE, require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.lm.timing import Round, device_lock, stopwatch, synchronise, timed_rounds
from ablations.lm.tokenizer import prefix_ids
from ablations.sdtp.pruned.cost import prefill_flops, scorer_flops
from ablations.sdtp.pruned.decoding import greedy_decode
from ablations.sdtp.pruned.living import Scorer
from ablations.sdtp.pruned.prefill import Prefilled, no_scores, prefill
from ablations.sdtp.pruned.pruning import DENSE, Pruning
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.trained import open_pruner
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.sweep import Sweep, SweepPoint, SweepSpec
from ablations.specs.sdtp.timing import TimedPair

Name = TypeVar("Name", bound=Hashable)


class Loaded:
    """What the prompt lengths of a panel share: the model, and pruners and held-out texts by their paths.

    Args:
        run: A job; its model and way of computing are those of all.

    Raises:
        UserError: the model or its tokenizer is missing or corrupt.
    """

    def __init__(self, run: Run[SweepSpec]) -> None:
        compute = run.spec.compute
        self.device = configure(compute)
        self._load = partial(load_model, run.job.path("model"), compute, self.device)
        self.lm = self._load()
        self.layout = pack_linears(self.lm)
        self._tokenizer = load_tokenizer(run.job.path("model"))
        self.pruner = cache(self._pruner)
        self._heldout = cache(_heldout)

    @cached_property
    def stock(self) -> torch.nn.Module:
        """The model of `transformers`, with its own stock weights."""
        return (self.lm if self.layout == "stock" else self._load()).model

    def prompt(self, job: JobFile[SweepSpec]) -> Tensor:
        """``[tokens]`` int64: BOS, if any, and the held-out documents in order, cut to the job's length.

        Raises:
            UserError: the text is missing, corrupt or too short.
        """
        tokens = job.spec.tokens
        ids = prefix_ids(self._tokenizer)
        for text in self._heldout(job.path("text")):
            left = tokens - len(ids)
            ids += self._tokenizer(
                text, add_special_tokens=False, truncation=True, max_length=left, verbose=False
            ).input_ids
            if len(ids) == tokens:
                return torch.tensor(ids, dtype=torch.int64, device=self.device)
        raise UserError(
            f"sdtp.sweep.lengths: {tokens} tokens asked for, but the held-out text has {len(ids)};"
            " lower it or use a larger text"
        )

    def _pruner(self, manifest: Path, layers: tuple[int, ...]) -> Pruner:
        """A pruner for stages at `layers`."""
        require_layers(layers, self.lm.num_layers)
        pruner, _, _ = open_pruner(manifest, layers, self.device)
        return pruner


class Measurement:
    """One prompt, timed with and without pruning.

    Times depend on lengths only, so one prompt is enough.

    Args:
        loaded: What it shares with other lengths.
        job: What to measure.

    Raises:
        UserError: the model lacks a layer or positions, the pruner is for other layers, or the text is too
            short.
    """

    def __init__(self, loaded: Loaded, job: JobFile[SweepSpec]) -> None:
        self.spec = job.spec
        self.loaded = loaded
        self.lm = loaded.lm
        self.device = loaded.device
        _require_positions(self.lm, self.spec)
        self.pruner = loaded.pruner(job.path("pruner"), self.spec.layers)
        self._score = self.pruner.of_prompt(self.spec.tokens)
        self.prompt = loaded.prompt(job)
        self.cache = self.lm.new_cache(self.spec.tokens + self.spec.new_tokens)

    def prefill(self, pruning: Pruning, scorer: Scorer) -> Prefilled:
        """Prefill the prompt into the emptied cache."""
        self.cache.truncate(0)
        return prefill(self.lm, self.prompt, self.cache, pruning, scorer)

    def dense(self) -> Prefilled:
        """Prefill without stages, the reference."""
        return self.prefill(DENSE, no_scores)

    def generate(self, prefilling: Callable[[], Prefilled]) -> Tensor:
        """Prefill, and decode `new_tokens` greedy tokens from its cache; returns ``[new_tokens]`` int64."""
        return greedy_decode(self.lm, prefilling(), self.cache, self.spec.new_tokens)

    def library(self, bar: tqdm) -> tuple[TimedPair, ...]:
        """Time unpruned prefills against those of `transformers`."""
        dense = partial(_logits, self.dense)
        library = partial(_library_prefill, self.loaded.stock, self.prompt)
        return self._rounds(library, {"dense": dense}, bar)["dense"]

    def points(self, bar: tqdm) -> Iterator[SweepPoint]:
        """Measure times and costs at each keep ratio; those of one kind are timed in the same rounds."""
        prunings = {
            ratio: Pruning(self.spec.layers, (ratio,) * len(self.spec.layers), self.spec.preserve)
            for ratio in self.spec.keep_ratios
        }
        pruned = {ratio: partial(self.prefill, pruning, self._score) for ratio, pruning in prunings.items()}
        prefills = self._rounds(
            partial(_logits, self.dense), {ratio: partial(_logits, arm) for ratio, arm in pruned.items()}, bar
        )
        end_to_end = self._rounds(
            partial(self.generate, self.dense),
            {ratio: partial(self.generate, arm) for ratio, arm in pruned.items()},
            bar,
        )
        reference_kv_bytes, reference_flops = self._costs(self.dense())
        for ratio, pruning in prunings.items():
            overhead = median(self._stage_share(pruning) for _ in range(self.spec.repeats))
            bar.update(self.spec.repeats)
            kv_bytes, flops = self._costs(pruned[ratio]())
            yield SweepPoint(
                keep_ratio=ratio,
                flops=flops,
                reference_flops=reference_flops,
                kv_bytes=kv_bytes,
                reference_kv_bytes=reference_kv_bytes,
                prefill=prefills[ratio],
                end_to_end=end_to_end[ratio],
                overhead=overhead,
            )

    def _costs(self, prefilled: Prefilled) -> tuple[int, int]:
        """Bytes of the cache after a prefill, and the prefill's floating-point operations."""
        scores = scorer_flops(self.pruner, prefilled.scored)
        flops = prefill_flops(self.lm, self.cache.lengths) + scores
        return self.cache.bytes_in_use(), flops

    def _rounds(
        self, reference: Callable[[], Tensor], arms: Mapping[Name, Callable[[], Tensor]], bar: tqdm
    ) -> dict[Name, tuple[TimedPair, ...]]:
        """Time arms and their reference in rounds, after untimed ones."""

        @contextmanager
        def counted(_: Name) -> Iterator[None]:
            yield
            bar.update()

        for _ in range(self.spec.warmup):
            self._require_finite(reference())
            for name, arm in arms.items():
                with counted(name):
                    self._require_finite(arm())
        measured = timed_rounds(self.device, reference, arms, counted, self.spec.repeats, 0)
        return {name: tuple(map(self._pair, rounds)) for name, rounds in measured.items()}

    def _pair(self, one_round: Round[Tensor]) -> TimedPair:
        (output, seconds), (reference_output, reference_seconds), again = one_round
        self._require_finite(output)
        self._require_finite(reference_output)
        return TimedPair(arm=seconds, reference=reference_seconds, again=again)

    def _require_finite(self, output: Tensor) -> None:
        """Check the logits of a prefill, or the logits behind decoded tokens.

        Raises:
            UserError: one is NaN or infinite.
        """
        finite = output.isfinite() if output.is_floating_point() else output != NOT_FINITE
        require_finite(bool(finite.all()), "the logits of the prompt", self.lm.dtype)

    def _stage_share(self, pruning: Pruning) -> float:
        """Share of a pruned prefill's time between the start of a stage's scoring and the start of its layer.

        Measured on a prefill of its own, since the device is synchronised around every stage.
        """
        started: list[float] = []
        ended: list[float] = []

        def score(stage: int, states: Tensor, indices: Tensor) -> Tensor:
            synchronise(self.device)
            started.append(perf_counter())
            return self._score(stage, states, indices)

        def enter(*_: object) -> None:
            synchronise(self.device)
            ended.append(perf_counter())

        with _before_layers(self.lm, pruning.layers, enter):
            _, total = stopwatch(self.device, partial(self.prefill, pruning, score))
        return sum(end - start for start, end in zip(started, ended, strict=True)) / total


@contextmanager
def _before_layers(lm: LayeredLM, layers: tuple[int, ...], call: Callable[..., None]) -> Iterator[None]:
    handles = [lm.layers[layer].register_forward_pre_hook(call) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _logits(prefilling: Callable[[], Prefilled]) -> Tensor:
    return prefilling().logits


@torch.inference_mode()
def _library_prefill(model: torch.nn.Module, prompt: Tensor) -> Tensor:
    return model(prompt[None], use_cache=True, logits_to_keep=1).logits


def _require_positions(lm: LayeredLM, spec: SweepSpec) -> None:
    tokens = spec.tokens + spec.new_tokens
    positions = lm.config.max_position_embeddings
    if tokens > positions and not spec.beyond_positions:
        raise UserError(
            f"sdtp.sweep.lengths: a prompt of {spec.tokens} and {spec.new_tokens} new tokens exceed the"
            f" model's {positions} positions; lower it to at most {positions - spec.new_tokens}, or set"
            " sdtp.sweep.beyond_positions to true where time alone is of interest"
        )


def _heldout(manifest: Path) -> list[str]:
    return [document.text for document in read_corpus(manifest) if document.split == "heldout"]


def sweep(panel: Panel[SweepSpec]) -> None:
    """Measure each prompt length and write its times.

    A length whose result is there is skipped. One that is longer than the model's positions or the text, or
    whose inputs are missing, corrupt or made for another spec, fails alone.

    Raises:
        UserError: the model is missing or corrupt.
    """
    loaded: Loaded | None = None
    for member in panel.due():
        loaded = loaded or Loaded(panel.first)
        with member.at_work():
            _measure(loaded, member.run)


def _measure(loaded: Loaded, run: Run[SweepSpec]) -> None:
    spec = run.spec
    measurement = Measurement(loaded, run.job)
    ratios = len(spec.keep_ratios)
    arms = (spec.warmup + spec.repeats) * (1 + 2 * ratios) + ratios * spec.repeats
    with tqdm(total=arms, desc=f"sweep {spec.tokens}", mininterval=2) as bar, device_lock(loaded.device):
        library = measurement.library(bar)
        points = tuple(measurement.points(bar))
    device = loaded.device
    result = Sweep(
        spec=spec,
        points=points,
        library=library,
        weight_layout=loaded.layout,
        environment=environment_of(
            run, device_name(device), device.type, spec.compute.threads, spec.compute.dtype
        ),
        digests=digests_of(run),
    )
    write_text(run.out, result.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.sdtp.sweep", SweepSpec, sweep, __doc__)
