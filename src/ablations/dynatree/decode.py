"""Job: measure decoding configurations against their references, prompt by prompt and side by side."""

import runpy
import sys
from collections.abc import Hashable, Iterable, Mapping
from functools import cache, partial
from typing import NamedTuple

import torch
from tqdm import tqdm

from ablations.core.panel import Member, Panel, main
from ablations.core.record import Record, environment_of
from ablations.dynatree.arm import Decoder, DecoderBuilder, warm_up
from ablations.dynatree.counting import counted
from ablations.dynatree.decoding import Generation
from ablations.dynatree.exactness import Exactness, measured_margin
from ablations.dynatree.generate import decode_with_transformers
from ablations.dynatree.prompts import first_prompts
from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure, device_name, peak_memory_bytes
from ablations.lm.fused import fastest
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import Round, device_lock, timed_rounds
from ablations.specs.dynatree.arm import DRAFTED_FROM, ArmSpec
from ablations.specs.dynatree.decode import DecodePair, DecodeSample, DecodeSeries
from ablations.specs.dynatree.exactness import DecodeTotals, Departure

Arm = Member[DecodeSeries]


class Turn(NamedTuple):
    """One prompt, and the arms that decode it side by side; their reference and their runs are the same.

    Attributes:
        number: Number of the prompt among those of its kind.
        window: The prompt.
        arms: The arms' jobs.
    """

    number: int
    window: Window
    arms: list[Arm]

    @property
    def spec(self) -> DecodeSeries:
        """A spec whose reference and runs are those of all."""
        return self.arms[0].spec

    @property
    def prompt(self) -> list[int]:
        """Token ids of the prompt."""
        return self.window.ids.tolist()


def read_arms_prompts(arms: Iterable[Arm], target: LayeredLM) -> dict[Arm, list[Window]]:
    """The first prompts of each arm that lacks some, up to the last one that it lacks.

    A kind of prompts is read once for all arms. An arm whose prompts cannot be read fails and is left out.
    """
    read = cache(first_prompts)
    prompts = {}
    for arm in arms:
        numbers, job = arm.wanted(), arm.run.job
        if numbers:
            with arm.at_work():
                paths = job.path(job.spec.prompts.text), job.path("model")
                prompts[arm] = read(job.spec.prompts, max(numbers) + 1, *paths, target, job.spec.new_tokens)
    return prompts


def turns_of(prompts: Mapping[Arm, list[Window]]) -> list[Turn]:
    """The prompts that arms lack, one kind after another, each with the arms that decode it side by side."""
    turns: dict[Hashable, Turn] = {}
    for arm, windows in prompts.items():
        spec = arm.spec
        runs = (spec.reference, spec.new_tokens, spec.repeats, spec.discarded, spec.warmup)
        for number in arm.wanted():
            key = (arm.run.job.inputs[spec.prompts.text], spec.prompts, number, runs)
            turns.setdefault(key, Turn(number, windows[number], [])).arms.append(arm)
    return list(turns.values())


class Bench:
    """The arms of a panel and their references, built on one target.

    Args:
        target: The model that decides.
        builder: Builds decoders on it.
        arms: The arms' jobs. One whose decoder cannot be built fails and is left out.

    Attributes:
        exactness: What is known of each arm's tokens; an arm's margin does not depend on other arms.
    """

    def __init__(self, target: LayeredLM, builder: DecoderBuilder, arms: Iterable[Arm]) -> None:
        self._target = target
        self._builder = builder
        self._decoders: dict[Arm, Decoder] = {}
        self._references: dict[str, Decoder] = {}
        margin = cache(partial(measured_margin, target))
        self.exactness: dict[Arm, Exactness] = {}
        self._warm: set[Decoder] = set()
        # Jobs of one arm on several kinds of prompts share its decoder.
        built: dict[Hashable, Decoder] = {}
        for arm in arms:
            spec, job = arm.spec, arm.run.job
            self.exactness[arm] = Exactness(target, margin)
            made_of = (ArmSpec(**spec.fields_of(ArmSpec)), *map(job.inputs.get, DRAFTED_FROM))
            with arm.at_work():
                if made_of not in built:
                    built[made_of] = builder.arm(spec, job.path)
                self._decoders[arm] = built[made_of]
        for name in {arm.spec.reference for arm in self._decoders}:
            greedy = name == "autoregressive"
            self._references[name] = (
                builder.autoregressive() if greedy else partial(decode_with_transformers, target)
            )

    def warm_up(self, turn: Turn) -> None:
        """Run the arms of a turn and their reference, untimed.

        Rounds that are discarded run every prompt untimed, so an arm that has them needs this once.
        """
        spec, prompt = turn.spec, turn.prompt
        cold = [
            arm
            for arm in turn.arms
            if arm.active and not (spec.discarded and self._decoders[arm] in self._warm)
        ]
        for _ in range(spec.warmup if cold else 0):
            for arm in cold:
                if arm.active:
                    decoder = self._decoders[arm]
                    whole = arm.spec.drafter is not None and decoder not in self._warm
                    with arm.at_work():
                        warm_up(decoder, prompt, spec.new_tokens, whole)
            warm_up(self._references[spec.reference], prompt, spec.new_tokens, whole=False)
        self._warm.update(self._decoders[arm] for arm in cold)

    def measure(self, turn: Turn) -> None:
        """Time the arms of a turn beside their reference, check what they emit, and give it to their jobs."""
        spec, prompt = turn.spec, turn.prompt
        arms = [arm for arm in turn.arms if turn.number in arm.wanted()]
        reference = partial(self._references[spec.reference], prompt, spec.new_tokens)
        works = {arm: partial(self._decoders[arm], prompt, spec.new_tokens) for arm in arms}
        for _ in range(spec.discarded if works else 0):
            reference()
            for arm, work in works.items():
                if arm.active:
                    with arm.at_work():
                        work()
        works = {arm: work for arm, work in works.items() if arm.active}
        timed = timed_rounds(self._target.device, reference, works, Member.at_work, spec.repeats, turn.number)
        for arm, rounds in timed.items():
            with arm.at_work():
                self._check(arm, turn, rounds)
        if not all(arm.active for arm in arms):
            self._builder.clear_caches()

    def _check(self, arm: Arm, turn: Turn, rounds: list[Round[Generation]]) -> None:
        departures: tuple[Departure, ...] = ()
        for (emitted, _), (greedy, _), _ in rounds:
            departures = self.exactness[arm].departures(
                turn.window.document, turn.prompt, emitted.tokens, greedy.tokens
            )
        last = rounds[-1]
        row = {
            "document": turn.window.document,
            "tokens": last.arm[0].tokens,
            "greedy": last.reference[0].tokens,
        }
        arm.add(turn.number, sample(turn.window, rounds, departures, self._target.eos_ids), row)


def sample(
    window: Window,
    rounds: list[Round[Generation]],
    departures: tuple[Departure, ...],
    eos_ids: frozenset[int],
) -> DecodeSample:
    """One row of the record; counts and parts of the time are those of the last round."""
    generation = rounds[-1].arm[0]
    counts = counted(
        window,
        generation.tokens,
        generation.accepted,
        generation.tested,
        generation.drafted,
        generation.draft_forwards,
    )
    return DecodeSample(
        **counts,
        stopped=generation.tokens[-1] in eos_ids,
        matched=not departures,
        ties=len(departures),
        departures=departures,
        draft_seconds=generation.draft_seconds,
        verify_seconds=generation.verify_seconds,
        bookkeeping_seconds=generation.bookkeeping_seconds,
        pairs=tuple(
            DecodePair(
                arm=arm_seconds,
                arm_first=arm.first_seconds,
                reference=reference_seconds,
                reference_first=reference.first_seconds,
                again=again,
            )
            for (arm, arm_seconds), (reference, reference_seconds), again in rounds
        ),
    )


@torch.inference_mode()
def decode(panel: Panel[DecodeSeries]) -> None:
    """Measure the arms of a panel and their references on the prompts that the arms lack.

    An arm that has bad input, or emits tokens that are not the target's greedy ones, fails alone.

    Raises:
        UserError: bad input of all.
    """
    compute = panel.first.spec.compute
    device = configure(compute)
    target, layout = fastest(load_model(panel.first.job.path("model"), compute, device))
    prompts = read_arms_prompts(panel.members, target)
    # With the prompts before those that are lacking: on a GPU, a cache's size is part of how it is read.
    lengths = [
        len(window.ids) + arm.spec.new_tokens for arm, windows in prompts.items() for window in windows
    ]
    bench = Bench(target, DecoderBuilder(target, compute, max(lengths, default=0)), prompts)
    for arm in prompts:
        arm.describes(
            Record[DecodeSeries, DecodeSample, DecodeTotals],
            partial(
                environment_of, arm.run, device_name(device), device.type, compute.threads, compute.dtype
            ),
            partial(_totals, bench.exactness[arm], layout, device),
        )
    turns = turns_of(prompts)
    runs = [turn.spec.warmup + turn.spec.discarded + turn.spec.repeats for turn in turns]
    total = sum(len(turn.arms) * count for turn, count in zip(turns, runs, strict=True))
    with device_lock(device), tqdm(total=total, desc="decode", unit="run", mininterval=2) as progress:
        for turn in turns:
            bench.warm_up(turn)
            progress.update(len(turn.arms) * turn.spec.warmup)
        for turn, count in zip(turns, runs, strict=True):
            bench.measure(turn)
            progress.update(len(turn.arms) * (count - turn.spec.warmup))


def _totals(exactness: Exactness, layout: str, device: torch.device) -> DecodeTotals:
    return DecodeTotals(
        tie_margin=exactness.margin, weight_layout=layout, peak_memory_bytes=peak_memory_bytes(device)
    )


if __name__ == "__main__":
    if any(argument.startswith("--panel") for argument in sys.argv[1:]):
        main("ablations.dynatree.decode", DecodeSeries, decode, "Measure decoding configurations.")
    else:
        # Run by name, not imported, so that the code of the command line does not determine a record.
        runpy.run_module("ablations.byhand.decode", run_name="__main__", alter_sys=True)
