"""Job `sweep`: prefill and end-to-end time at one prompt length, for several keep ratios."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from tqdm import tqdm

from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus
from ablations.lm.device import configure, device_name
from ablations.lm.finite import NOT_FINITE, require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.lm.timing import device_lock, stopwatch, synchronise, timed_pairs
from ablations.lm.tokenizer import start_of_text
from ablations.sdtp.pruned.cost import prefill_flops
from ablations.sdtp.pruned.decoding import greedy_decode
from ablations.sdtp.pruned.living import Scorer
from ablations.sdtp.pruned.prefill import Prefilled, no_scores, prefill
from ablations.sdtp.pruned.pruning import DENSE, Pruning
from ablations.sdtp.pruned.selection import require_layers
from ablations.sdtp.scores.pruner import open_pruner
from ablations.study.contracts.sdtp import Sweep, SweepPoint, SweepSpec, TimedPair
from ablations.study.errors import UserError
from ablations.study.files import write_text
from ablations.study.job import Run, main
from ablations.study.record_io import digests_of, environment_of

Timed = Prefilled | Tensor
"""What is timed: a prefill, the logits of the library's, or the tokens that follow."""


class Measurement:
    """The model, its pruner and one prompt, timed with and without pruning.

    Time depends on lengths alone, so one prompt stands for all.

    Args:
        run: The job.

    Raises:
        UserError: the model lacks a layer or positions, its pruner is for others, or no text is long enough.
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
        """Prefill of the prompt into the emptied cache."""
        self.cache.truncate(0)
        return prefill(self.lm, self.prompt, self.cache, pruning, scorer)

    def dense(self) -> Prefilled:
        """The reference: the same code without stages."""
        return self.prefill(DENSE, no_scores)

    def generate(self, prefilling: Callable[[], Prefilled]) -> Tensor:
        """Prefill and `new_tokens` greedy tokens from the cache that it left; `[new_tokens]` int64."""
        return greedy_decode(self.lm, prefilling(), self.cache, self.spec.new_tokens)

    def library(self, bar: tqdm) -> tuple[TimedPair, ...]:
        """Unpruned prefill beside that of `transformers`, which gets stock weights of its own."""
        stock = (self.lm if self.layout == "stock" else self._load()).model
        return self._pairs(self.dense, partial(_library_prefill, stock, self.prompt), bar)

    def point(self, keep_ratio: float, bar: tqdm) -> SweepPoint:
        """Times and costs at one keep ratio."""
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
        """Bytes of the cache that a prefill just left, and its floating-point operations."""
        flops = prefill_flops(self.lm, self.cache.lengths, prefilled.scored, self.width)
        return self.cache.bytes_in_use(), flops

    def _pairs(
        self, arm: Callable[[], Timed], reference: Callable[[], Timed], bar: tqdm
    ) -> tuple[TimedPair, ...]:
        spec = self.spec
        found = []
        for (pruned, seconds), (other, reference_seconds) in timed_pairs(
            self.device, arm, reference, spec.warmup + spec.repeats, arm_first=spec.warmup % 2 == 0
        ):
            for result in (pruned, other):
                require_finite(_finite(result), "the logits of the prompt", self.lm.dtype)
            found.append(TimedPair(arm=seconds, reference=reference_seconds))
            bar.update()
        return tuple(found[spec.warmup :])

    def _stage_share(self, pruning: Pruning) -> float:
        """Share of one pruned prefill between the start of a stage's scoring and the start of its layer.

        The device is synchronised around every stage, so this prefill is not among the timed ones.
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


def _finite(result: Timed) -> bool:
    """Whether what was timed is finite: the logits of a prefill, or tokens of greedy decoding."""
    values = result.logits if isinstance(result, Prefilled) else result
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
    """`[tokens]` int64: BOS, if any, and held-out documents one after another, cut to the length."""
    tokens = run.spec.tokens
    tokenizer = load_tokenizer(run.job.path("model"))
    ids = start_of_text(tokenizer)
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
        UserError: an input is missing, corrupt or made for something else, the prompt is longer than the
            model or the text allows, or the model lacks a layer.
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
