"""Jobs `replay`: decoding configurations on many prompts, in numbers that no clock plays a part in."""

from collections.abc import Hashable, Iterable
from functools import cache, partial

import torch
from tqdm import tqdm

from ablations.core.panel import Member, Panel, main
from ablations.core.record import Record, environment_of
from ablations.dynatree.arm import build_draft
from ablations.dynatree.decoding import Draft
from ablations.dynatree.drafters.build import Loaded
from ablations.dynatree.prompts import first_prompts
from ablations.dynatree.replay import replayed
from ablations.dynatree.traces import greedy_traces
from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure, device_name, peak_memory_bytes
from ablations.lm.fused import fastest
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.arm import DRAFTED_FROM, ArmSpec
from ablations.specs.dynatree.replay import Replay, ReplaySeries, ReplayTotals

Arm = Member[ReplaySeries]
Group = tuple[list[Arm], list[Window]]
"""Arms that are replayed on the same prompts, and these prompts from the first on."""


def groups_of(arms: Iterable[Arm], target: LayeredLM) -> list[Group]:
    """Arms that lack prompts, by the prompts; one whose prompts cannot be read fails and is left out."""
    read = cache(first_prompts)
    found: dict[Hashable, Group] = {}
    for arm in arms:
        spec, job, numbers = arm.spec, arm.run.job, arm.wanted()
        if not numbers:
            continue
        key = (job.inputs[spec.prompts.text], spec.prompts, spec.new_tokens)
        with arm.at_work():
            paths = job.path(spec.prompts.text), job.path("model")
            windows = read(spec.prompts, max(numbers) + 1, *paths, target, spec.new_tokens)
            members, longest = found.setdefault(key, ([], windows))
            members.append(arm)
            if len(windows) > len(longest):
                found[key] = (members, windows)
    return list(found.values())


class Drafts:
    """The drafts of arms; jobs of one arm on several kinds of prompts share it.

    Args:
        loaded: What drafters are made of, and the model that decides.
        tokens: Most tokens of a prompt and its continuation.
    """

    def __init__(self, loaded: Loaded, tokens: int) -> None:
        self._loaded = loaded
        self._tokens = tokens
        self._built: dict[Hashable, Draft] = {}

    def of(self, arm: Arm) -> Draft:
        """The draft of an arm.

        Raises:
            UserError: a contradictory spec, or a drafter of another vocabulary.
        """
        spec, job = arm.spec, arm.run.job
        made_of = (ArmSpec(**spec.fields_of(ArmSpec)), *map(job.inputs.get, DRAFTED_FROM))
        if made_of not in self._built:
            self._built[made_of] = build_draft(spec, job.path, self._loaded, self._tokens)
        return self._built[made_of]


@torch.inference_mode()
def replay_arms(panel: Panel[ReplaySeries]) -> None:
    """Continue each prompt once for all arms that lack it, and replay each of them on it.

    An arm that has bad input fails alone.

    Raises:
        UserError: the target is missing or corrupt.
    """
    compute = panel.first.spec.compute
    device = configure(compute)
    target, layout = fastest(load_model(panel.first.job.path("model"), compute, device))
    groups = groups_of(panel.members, target)
    longest = [len(window.ids) + arms[0].spec.new_tokens for arms, windows in groups for window in windows]
    drafts = Drafts(Loaded(target, compute), max(longest, default=0))

    def totals() -> ReplayTotals:
        return ReplayTotals(weight_layout=layout, peak_memory_bytes=peak_memory_bytes(device))

    for arm in (arm for arms, _ in groups for arm in arms):
        environment = partial(
            environment_of, arm.run, device_name(device), device.type, compute.threads, compute.dtype
        )
        arm.describes(Record[ReplaySeries, Replay, ReplayTotals], environment, totals)
    total = sum(len(arm.wanted()) for arms, _ in groups for arm in arms)
    with tqdm(total=total, desc="replay", unit="prompt", mininterval=2) as progress:
        for group in groups:
            replay_group(group, target, drafts, progress)


def replay_group(group: Group, target: LayeredLM, drafts: Drafts, progress: tqdm) -> None:
    """Replay arms on the prompts that they lack."""
    arms, windows = group
    wanted = sorted({number for arm in arms for number in arm.wanted()})
    new_tokens = arms[0].spec.new_tokens
    traces = greedy_traces(target, [windows[number] for number in wanted], new_tokens)
    for number, trace in zip(wanted, traces, strict=True):
        for arm in arms:
            if number in arm.wanted():
                with arm.at_work():
                    arm.add(number, replayed(drafts.of(arm), trace, new_tokens))
                progress.update()


if __name__ == "__main__":
    main("ablations.dynatree.replay_arms", ReplaySeries, replay_arms, __doc__)
