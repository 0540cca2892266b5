"""Job: every way to decode the study's prompts, interleaved in one process on the same weights."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ablations.core.job import JobFile, Run, main
from ablations.core.record import Outcome, Record, digests_of, environment_of, write_record
from ablations.dynatree.arm import Decoder, DecoderBuilder, warm_up
from ablations.dynatree.counting import repeated_share
from ablations.dynatree.decoding import Generation
from ablations.dynatree.exactness import Exactness
from ablations.dynatree.generate import decode_with_transformers
from ablations.dynatree.prompts import read_prompts
from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure, device_name, peak_memory_bytes
from ablations.lm.fused import fastest
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.lm.timing import device_lock, stopwatch
from ablations.specs.dynatree.benchmark import (
    ArmRun,
    BenchmarkSample,
    BenchmarkSpec,
    Greedy,
    TransformersAssisted,
)
from ablations.specs.dynatree.exactness import DecodeTotals, Departure


def build_decoders(job: JobFile[BenchmarkSpec], target: LayeredLM, capacity: int) -> dict[str, Decoder]:
    """A decoder for every arm of the study and every setting of `generate`, by name.

    Assisted settings are left out where the spec has no assistant.

    Args:
        job: The job; knows where artefacts lie.
        target: The model that decides, the same for all.
        capacity: Most tokens of a prompt and its continuation.

    Raises:
        UserError: a drafter of another vocabulary, or trees whose cost is not known.
    """
    spec = job.spec
    builder = DecoderBuilder(target, spec.compute, capacity)
    decoders: dict[str, Decoder] = {
        name: builder.arm(arm, _finder(job, arm.inputs)) for name, arm in spec.arms.items()
    }
    assistant = None
    if spec.assistant is not None:
        draft = load_model(job.path(spec.assistant), spec.compute, target.device)
        _give_rows(draft.model, target.config.vocab_size)
        pack_linears(draft)
        assistant = draft.model
    for name, setting in spec.transformers.items():
        assisted = isinstance(setting, TransformersAssisted)
        if assisted and assistant is None:
            continue
        decoders[name] = partial(
            decode_with_transformers,
            target,
            assistant=assistant if assisted else None,
            options=setting.model_dump(exclude={"method"}),
        )
    return decoders


def _give_rows(assistant: PreTrainedModel, rows: int) -> None:
    """Pad or cut embedding and head: `generate` takes other rows than the target's for another tokenizer."""
    before = assistant.config.vocab_size
    if before == rows:
        return
    assistant.resize_token_embeddings(rows, mean_resizing=False)
    for part in (assistant.get_input_embeddings(), assistant.get_output_embeddings()):
        part.weight.data[before:] = 0.0


def _finder(job: JobFile[BenchmarkSpec], inputs: Mapping[str, str]) -> Callable[[str], Path]:
    return lambda name: job.path(inputs.get(name, name))


def rotated(names: list[str], turn: int) -> list[str]:
    """The order of arms in one turn: each begins in its turn, and every other turn runs backwards."""
    start = turn // 2 % len(names)
    order = names[start:] + names[:start]
    return order if turn % 2 == 0 else order[::-1]


def arm_run(
    timed: list[tuple[Generation, float]], greedy: list[int], departures: tuple[Departure, ...]
) -> ArmRun:
    """What one arm did with one prompt, all repeats; `departures` are those of the last."""
    generation = timed[-1][0]
    return ArmRun(
        seconds=tuple(seconds for _, seconds in timed),
        first_seconds=generation.first_seconds,
        new_tokens=len(generation.tokens),
        matched=generation.tokens == greedy,
        ties=len(departures),
        departures=departures,
        target_forwards=len(generation.accepted),
        draft_forwards=generation.draft_forwards,
        drafted=sum(generation.drafted),
        accepted=sum(generation.accepted),
        draft_seconds=generation.draft_seconds,
        verify_seconds=generation.verify_seconds,
        bookkeeping_seconds=generation.bookkeeping_seconds,
    )


class Bench:
    """All decoders of a benchmark, and how they are measured on a prompt.

    Args:
        spec: What is measured.
        target: The model that decides.
        decoders: Decoders by name, those of `build_decoders`.

    Attributes:
        exactness: What it found of the arms' tokens.
    """

    def __init__(self, spec: BenchmarkSpec, target: LayeredLM, decoders: dict[str, Decoder]) -> None:
        self._spec = spec
        self._target = target
        self._decoders = decoders
        self.exactness = Exactness(target)
        self._warm: set[str] = set()
        self._greedy = next(name for name, arm in spec.transformers.items() if isinstance(arm, Greedy))

    def warm_up(self, window: Window, names: list[str], progress: tqdm) -> None:
        """Run decoders on a prompt, untimed.

        Args:
            window: The prompt.
            names: Which decoders.
            progress: Is told of each run.
        """
        spec = self._spec
        plain = {name for name, arm in spec.arms.items() if arm.drafter is None}
        plain |= {name for name, setting in spec.transformers.items() if isinstance(setting, Greedy)}
        for _ in range(spec.warmup):
            for name in names:
                whole = name not in plain and name not in self._warm
                warm_up(self._decoders[name], window.ids.tolist(), spec.new_tokens, whole)
                progress.update()
        self._warm.update(names)

    def active(self, place: int) -> list[str]:
        """Decoders that run on a kind's prompt at `place`, counted from 0."""
        most = {name: arm.prompts for name, arm in self._spec.arms.items()}
        return [name for name in self._decoders if (limit := most.get(name)) is None or place < limit]

    def measure(
        self, window: Window, names: list[str], turn: int, progress: tqdm
    ) -> tuple[BenchmarkSample, dict]:
        """Run decoders on a prompt, interleaved, and check what they emit.

        Args:
            window: The prompt.
            names: Which decoders.
            turn: Number of the prompt, which decides the order.
            progress: Is told of each run.

        Returns:
            The sample, and a row with the emitted tokens.

        Raises:
            UserError: an arm of the study emitted what is not the target's greedy token.
        """
        prompt = window.ids.tolist()
        timed: dict[str, list[tuple[Generation, float]]] = {name: [] for name in names}
        for repeat in range(self._spec.repeats):
            for name in rotated(names, turn + repeat):
                work = partial(self._decoders[name], prompt, self._spec.new_tokens)
                timed[name].append(stopwatch(self._target.device, work))
                progress.update()
        greedy = timed[self._greedy][-1][0].tokens
        runs = {}
        for name in names:
            departures: tuple[Departure, ...] = ()
            document = f"{window.document} ({name})"
            for generation, _ in timed[name] if name in self._spec.arms else ():
                departures = self.exactness.departures(document, prompt, generation.tokens, greedy)
            runs[name] = arm_run(timed[name], greedy, departures)
        departed = {name: timed[name][-1][0].tokens for name in names if not runs[name].matched}
        sample = BenchmarkSample(
            document=window.document,
            kind=window.kind,
            prompt_tokens=len(prompt),
            repeated_4grams=repeated_share(greedy, 4),
            runs=runs,
        )
        return sample, {"document": window.document, "greedy": greedy, "departed": departed}


@torch.inference_mode()
def run(run: Run[BenchmarkSpec]) -> None:
    """Measure every arm on every prompt, check exactness, write the record.

    Raises:
        UserError: bad input, or emitted tokens that are not the target's greedy ones.
    """
    spec = run.spec
    device = configure(spec.compute)
    target, layout = fastest(load_model(run.job.path("model"), spec.compute, device))
    prompts = read_prompts(run.job, target, spec.new_tokens)
    capacity = max(len(window.ids) for window in prompts) + spec.new_tokens
    bench = Bench(spec, target, build_decoders(run.job, target, capacity))
    kinds = [window.kind for window in prompts]
    active = [bench.active(kinds[:index].count(kind)) for index, kind in enumerate(kinds)]
    total = (spec.warmup + spec.repeats) * sum(map(len, active))
    with device_lock(device), tqdm(total=total, desc="benchmark", unit="run", mininterval=2) as progress:
        for window, names in zip(prompts, active, strict=True):
            bench.warm_up(window, names, progress)
        measured = [
            bench.measure(window, names, turn, progress)
            for turn, (window, names) in enumerate(zip(prompts, active, strict=True))
        ]
    record = Record[BenchmarkSpec, BenchmarkSample, DecodeTotals](
        label=run.label,
        module=run.job.module,
        spec=spec,
        outcome=Outcome(status="ok"),
        samples=tuple(sample for sample, _ in measured),
        totals=DecodeTotals(
            tie_margin=bench.exactness.margin,
            weight_layout=layout,
            peak_memory_bytes=peak_memory_bytes(device),
        ),
        environment=environment_of(
            run, device_name(device), device.type, spec.compute.threads, spec.compute.dtype
        ),
        digests=digests_of(run),
    )
    write_record(run.out, record, [row for _, row in measured])


if __name__ == "__main__":
    main("ablations.dynatree.benchmark", BenchmarkSpec, run, "Measure every way to decode, side by side.")
