"""Job `sweep`: prefill and end-to-end times at one prompt length, for several keep ratios."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from tqdm import tqdm

from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.core.job import Run, main
from ablations.core.record import digests_of, environment_of
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus
from ablations.lm.device import configure, device_name
from ablations.lm.finite import NOT_FINITE, require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.lm.timing import device_lock, stopwatch, synchronise, timed_pairs
from ablations.lm.tokenizer import prefix_ids
from ablations.sdtp.pruned.cost import prefill_flops
from ablations.sdtp.pruned.decoding import greedy_decode
from ablations.sdtp.pruned.living import Scorer
from ablations.sdtp.pruned.prefill import Prefilled, no_scores, prefill
from ablations.sdtp.pruned.pruning import DENSE, Pruning
from ablations.sdtp.scores.trained import open_pruner
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.sweep import Sweep, SweepPoint, SweepSpec
from ablations.specs.sdtp.timing import TimedPair

Output = Prefilled | Tensor
"""Result of timed work: a prefill, the logits of the library's prefill, or decoded tokens."""


class Measurement:
    """The model, its pruner and one prompt, timed with and without pruning.

    Times depend on lengths only, so one prompt is enough.

    Args:
        run: The job.

    Raises:
        UserError: the model lacks a layer or positions, the pruner is for other layers, or the text is too
            short.
    """

    def __init__(self, run: Run[SweepSpec]) -> None:
        spec = run.spec
        self.spec = spec
        self.device = configure(spec.compute)
        self._load = partial(load_model, run.job.path("model"), spec.compute, self.device)
        self.lm = self._load()
        _require_positions(self.lm, spec)
        require_layers(spec.layers, self.lm.num_layers)
        self.pruner, trained, _ = open_pruner(run.job.path("pruner"), spec.layers, self.device)
        self.width = trained.width
        self.prompt = _heldout_prompt(run).to(self.device)
        self.layout = pack_linears(self.lm)
        self.cache = self.lm.new_cache(spec.tokens + spec.new_tokens)

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
        """Time unpruned prefills against those of `transformers`, which has its own stock weights."""
        stock = (self.lm if self.layout == "stock" else self._load()).model
        return self._pairs(self.dense, partial(_library_prefill, stock, self.prompt), bar)

    def point(self, keep_ratio: float, bar: tqdm) -> SweepPoint:
        """Measure times and costs at one keep ratio."""
        ratios = (keep_ratio,) * len(self.spec.layers)
        pruning = Pruning(self.spec.layers, ratios, self.spec.preserve)
        pruned = partial(self.prefill, pruning, self._score)
        prefill_pairs = self._pairs(pruned, self.dense, bar)
        decoding_pairs = self._pairs(partial(self.generate, pruned), partial(self.generate, self.dense), bar)
        overhead = median(self._stage_share(pruning) for _ in range(self.spec.repeats))
        bar.update(self.spec.repeats)
        kv_bytes, flops = self._costs(pruned())
        reference_kv_bytes, reference_flops = self._costs(self.dense())
        return SweepPoint(
            keep_ratio=keep_ratio,
            flops=flops,
            reference_flops=reference_flops,
            kv_bytes=kv_bytes,
            reference_kv_bytes=reference_kv_bytes,
            prefill=prefill_pairs,
            end_to_end=decoding_pairs,
            overhead=overhead,
        )

    def _score(self, stage: int, states: Tensor, indices: Tensor) -> Tensor:
        return self.pruner(stage, states)

    def _costs(self, prefilled: Prefilled) -> tuple[int, int]:
        """Bytes of the cache after a prefill, and the prefill's floating-point operations."""
        flops = prefill_flops(self.lm, self.cache.lengths, prefilled.scored, self.width)
        return self.cache.bytes_in_use(), flops

    def _pairs(
        self, arm: Callable[[], Output], reference: Callable[[], Output], bar: tqdm
    ) -> tuple[TimedPair, ...]:
        spec = self.spec
        pairs = []
        for (output, seconds), (reference_output, reference_seconds) in timed_pairs(
            self.device, arm, reference, spec.warmup + spec.repeats, arm_first=spec.warmup % 2 == 0
        ):
            for result in (output, reference_output):
                require_finite(_is_finite(result), "the logits of the prompt", self.lm.dtype)
            pairs.append(TimedPair(arm=seconds, reference=reference_seconds))
            bar.update()
        return tuple(pairs[spec.warmup :])

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


def _is_finite(output: Output) -> bool:
    """Whether the logits of a prefill are finite, or the logits behind decoded tokens were."""
    values = output.logits if isinstance(output, Prefilled) else output
    return bool((values.isfinite() if values.is_floating_point() else values != NOT_FINITE).all())


@contextmanager
def _before_layers(lm: LayeredLM, layers: tuple[int, ...], call: Callable[..., None]) -> Iterator[None]:
    handles = [lm.layers[layer].register_forward_pre_hook(call) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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


def _heldout_prompt(run: Run[SweepSpec]) -> Tensor:
    """``[tokens]`` int64: BOS, if any, and the held-out documents in order, cut to the length."""
    tokens = run.spec.tokens
    tokenizer = load_tokenizer(run.job.path("model"))
    ids = prefix_ids(tokenizer)
    for document in read_corpus(run.job.path("text")):
        if document.split != "heldout":
            continue
        left = tokens - len(ids)
        ids += tokenizer(
            document.text, add_special_tokens=False, truncation=True, max_length=left, verbose=False
        ).input_ids
        if len(ids) == tokens:
            return torch.tensor(ids, dtype=torch.int64)
    raise UserError(
        f"sdtp.sweep.lengths: {tokens} tokens asked for, but the held-out text has {len(ids)};"
        " lower it or use a larger text"
    )


def sweep(run: Run[SweepSpec]) -> None:
    """Measure one prompt length and write its times.

    Raises:
        UserError: an input is missing, corrupt or made for another spec, the model lacks a layer, or the
            prompt is longer than the model's positions or the text.
    """
    spec = run.spec
    measurement = Measurement(run)
    pairs = spec.warmup + spec.repeats
    total = pairs + len(spec.keep_ratios) * (2 * pairs + spec.repeats)
    with tqdm(total=total, desc="sweep", mininterval=2) as bar, device_lock(measurement.device):
        library = measurement.library(bar)
        points = tuple(measurement.point(ratio, bar) for ratio in spec.keep_ratios)
    device = measurement.device
    result = Sweep(
        spec=spec,
        points=points,
        library=library,
        weight_layout=measurement.layout,
        environment=environment_of(
            run, device_name(device), device.type, spec.compute.threads, spec.compute.dtype
        ),
        digests=digests_of(run),
    )
    write_text(run.out, result.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.sdtp.sweep", SweepSpec, sweep, __doc__)
