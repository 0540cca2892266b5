"""Job: measure one decoding configuration against its reference, prompt by prompt."""

import runpy
import sys
from functools import partial

import torch
from tqdm import tqdm

from ablations.core.job import Run, main
from ablations.core.record import Outcome, Record, digests_of, environment_of, write_record
from ablations.dynatree.arm import Decoder, build_arm, warm_up
from ablations.dynatree.decoding import Generation, decode_autoregressive
from ablations.dynatree.exactness import Exactness
from ablations.dynatree.generate import decode_with_transformers
from ablations.dynatree.prompts import read_prompts
from ablations.dynatree.repetition import repeated_share
from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure, device_name, peak_memory_bytes
from ablations.lm.fused import fastest
from ablations.lm.graphs import cache_for
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import Pair, device_lock, timed_pairs
from ablations.specs.dynatree.decode import DecodePair, DecodeSample, DecodeSpec
from ablations.specs.dynatree.exactness import DecodeTotals, Departure


def build_reference(spec: DecodeSpec, target: LayeredLM, capacity: int) -> Decoder:
    """The decoder that the arm is measured beside, whose tokens are the greedy ones."""
    if spec.reference == "generate":
        return partial(decode_with_transformers, target)
    return partial(decode_autoregressive, target, cache_for(target, capacity, 1))


def sample(
    window: Window,
    pairs: list[Pair[Generation]],
    departures: tuple[Departure, ...],
    eos_ids: frozenset[int],
) -> DecodeSample:
    """One row of the record; counts and parts of the time are those of the last pair."""
    generation = pairs[-1][0][0]
    return DecodeSample(
        document=window.document,
        kind=window.kind,
        prompt_tokens=len(window.ids),
        new_tokens=len(generation.tokens),
        stopped=generation.tokens[-1] in eos_ids,
        matched=not departures,
        ties=len(departures),
        departures=departures,
        repeated_4grams=repeated_share(generation.tokens, 4),
        target_forwards=len(generation.accepted),
        draft_forwards=generation.draft_forwards,
        drafted=sum(generation.drafted),
        accepted=sum(generation.accepted),
        accepted_per_round=tuple(generation.accepted),
        drafted_per_round=tuple(generation.drafted),
        tested_per_depth=rounds_by_depth(generation.tested),
        accepted_per_depth=rounds_by_depth(generation.accepted, max(generation.tested, default=0)),
        draft_seconds=generation.draft_seconds,
        verify_seconds=generation.verify_seconds,
        bookkeeping_seconds=generation.bookkeeping_seconds,
        pairs=tuple(
            DecodePair(
                arm=arm_seconds,
                arm_first=arm.first_seconds,
                reference=reference_seconds,
                reference_first=reference.first_seconds,
            )
            for (arm, arm_seconds), (reference, reference_seconds) in pairs
        ),
    )


def rounds_by_depth(reached: list[int], depths: int | None = None) -> tuple[int, ...]:
    """Rounds that reached at least depth 1, 2, and so on, up to `depths` (None: the deepest reached)."""
    depths = max(reached, default=0) if depths is None else depths
    return tuple(sum(level >= depth for level in reached) for depth in range(1, depths + 1))


@torch.inference_mode()
def run(run: Run[DecodeSpec]) -> None:
    """Measure the spec's arm and reference on its prompts, check exactness, write the record.

    Raises:
        UserError: bad input, or emitted tokens that are not the target's greedy ones.
    """
    spec = run.spec
    device = configure(spec.compute)
    target, layout = fastest(load_model(run.job.path("model"), spec.compute, device))
    prompts = read_prompts(run.job, target)
    capacity = max(len(window.ids) for window in prompts) + spec.new_tokens
    arm = build_arm(spec, run.job.path, spec.compute, target, capacity)
    reference = build_reference(spec, target, capacity)
    exactness = Exactness(target)
    samples, rows = [], []
    with device_lock(device):
        # Pairs that are discarded run every prompt untimed as it is.
        for window in prompts[:1] if spec.discarded else prompts:
            for _ in range(spec.warmup):
                warm_up(arm, window.ids.tolist(), spec.new_tokens, spec.drafter is not None)
                warm_up(reference, window.ids.tolist(), spec.new_tokens, drafts=False)
        for index, window in enumerate(tqdm(prompts, desc="decode", mininterval=2)):
            prompt = window.ids.tolist()
            pairs = list(
                timed_pairs(
                    device,
                    partial(arm, prompt, spec.new_tokens),
                    partial(reference, prompt, spec.new_tokens),
                    spec.discarded + spec.repeats,
                    arm_first=index % 2 == 0,
                )
            )[spec.discarded :]
            departures: tuple[Departure, ...] = ()
            for (emitted, _), (greedy, _) in pairs:
                departures = exactness.departures(window.document, prompt, emitted.tokens, greedy.tokens)
            emitted, greedy = (generation.tokens for generation, _ in pairs[-1])
            samples.append(sample(window, pairs, departures, target.eos_ids))
            rows.append({"document": window.document, "tokens": emitted, "greedy": greedy})
    record = Record[DecodeSpec, DecodeSample, DecodeTotals](
        label=run.label,
        module=run.job.module,
        spec=spec,
        outcome=Outcome(status="ok"),
        samples=tuple(samples),
        totals=DecodeTotals(
            tie_margin=exactness.margin, weight_layout=layout, peak_memory_bytes=peak_memory_bytes(device)
        ),
        environment=environment_of(
            run, device_name(device), device.type, spec.compute.threads, spec.compute.dtype
        ),
        digests=digests_of(run),
    )
    write_record(run.out, record, rows)


if __name__ == "__main__":
    if any(argument.startswith("--spec") for argument in sys.argv[1:]):
        main("ablations.dynatree.decode", DecodeSpec, run, "Measure one decoding configuration.")
    else:
        # Run by name, not imported, so that the code of the command line does not determine a record.
        runpy.run_module("ablations.byhand.decode", run_name="__main__", alter_sys=True)
