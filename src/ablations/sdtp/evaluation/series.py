"""Series of a panel that are ready to be measured, and their blocks."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from ablations.core.errors import UserError
from ablations.core.panel import Member
from ablations.core.record import Record, environment_of
from ablations.lm.corpus import Window
from ablations.lm.device import available_cores, device_name
from ablations.lm.layered import LayeredLM
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.evaluation.heldout import TOKENS_KEY, Heldout
from ablations.sdtp.pruned.cost import kv_bytes, prefill_flops
from ablations.sdtp.retrieval.prompts import RetrievalPrompt
from ablations.specs.sdtp.evaluate import (
    PrefillSample,
    PrefillSeries,
    PrunedSeries,
    RetrievalSeries,
    SeriesTotals,
    TextSample,
    TextSeries,
)
from ablations.specs.sdtp.retrieval import RetrievalProbe

Spec = TypeVar("Spec", bound=PrunedSeries)
Item = TypeVar("Item", Window, RetrievalPrompt)

TextBlock = Record[TextSeries, TextSample, SeriesTotals]
RetrievalBlock = Record[RetrievalSeries, RetrievalProbe, SeriesTotals]
PrefillBlock = Record[PrefillSeries, PrefillSample, SeriesTotals]
BLOCKS: dict[type, type[Record]] = {
    TextSeries: TextBlock,
    RetrievalSeries: RetrievalBlock,
    PrefillSeries: PrefillBlock,
}


@dataclass(frozen=True, eq=False)
class OpenSeries(Generic[Spec, Item]):
    """A series with its arm and its items.

    Attributes:
        member: The series, as a job of the panel.
        arm: What it measures.
        items: Its windows or retrieval prompts, by number, up to the last one that it lacks.
        wanted: Numbers of the items that it lacks.
    """

    member: Member[Spec]
    arm: PrunedArm
    items: Sequence[Item]
    wanted: frozenset[int]

    @property
    def spec(self) -> Spec:
        """What is measured."""
        return self.member.spec

    def describe(self, layout: str, device: torch.device, peak_memory: Callable[[], int]) -> None:
        """Say what its blocks hold beside samples.

        Args:
            layout: Layout of the weights in memory.
            device: Where it is measured.
            peak_memory: Returns the peak memory so far, in bytes.
        """
        lm, spec, compute = self.arm.lm, self.spec, self.spec.compute
        dense = [spec.prompt_tokens] * lm.num_layers
        facts = SeriesTotals(
            keep_ratios=self.arm.pruning.keep_ratios,
            reference_prefill_flops=prefill_flops(lm, dense),
            reference_kv_bytes=kv_bytes(lm.new_cache(1), dense),
            training=self.arm.training,
            calibration=self.arm.calibration,
            weight_layout=layout,
            cores=len(available_cores()),
            peak_memory_bytes=0,
        )
        environment = environment_of(
            self.member.run, device_name(device), device.type, compute.threads, compute.dtype
        )
        self.member.describes(
            BLOCKS[type(spec)],
            lambda: environment,
            lambda: facts.model_copy(update={"peak_memory_bytes": peak_memory()}),
        )


def heldout_items(
    member: Member[PrunedSeries], lm: LayeredLM, heldout: Heldout, wanted: Sequence[int]
) -> Sequence[Any]:
    """Windows or retrieval prompts of a series up to the last one that it lacks.

    Raises:
        UserError: an input is missing or corrupt, too few documents are long enough, or prompts are longer
            than the model's positions.
    """
    spec, text, count = member.spec, member.run.job.path("text"), max(wanted, default=-1) + 1
    if isinstance(spec, RetrievalSeries):
        prompts = heldout.retrieval(text, spec.prompts, count)
        lm.require_positions(max((prompt.length for prompt in prompts), default=0), TOKENS_KEY)
        return prompts
    assert isinstance(spec, TextSeries | PrefillSeries)
    require_positions(lm, spec.prompt_tokens, spec.continuation_tokens)
    return heldout.windows(text, spec.prompt_tokens + spec.continuation_tokens, count)


def require_positions(lm: LayeredLM, prompt_tokens: int, continuation_tokens: int) -> None:
    """Check that the model was made for windows of this length.

    Raises:
        UserError: prompt and continuation exceed the model's positions.
    """
    tokens = prompt_tokens + continuation_tokens
    positions = lm.config.max_position_embeddings
    if tokens > positions:
        raise UserError(
            f"evaluation.prompt_tokens: prompt and continuation of {tokens} tokens exceed the model's"
            f" {positions} positions; lower it to at most {positions - continuation_tokens}"
        )


def grouped(
    series: Sequence[OpenSeries[Spec, Item]], key: Callable[[OpenSeries[Spec, Item]], Hashable]
) -> list[list[OpenSeries[Spec, Item]]]:
    """The series in groups of equal keys."""
    groups: dict[Hashable, list[OpenSeries[Spec, Item]]] = {}
    for one in series:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def by_item(
    group: Sequence[OpenSeries[Spec, Item]],
) -> Iterator[tuple[int, Item, list[OpenSeries[Spec, Item]]]]:
    """Numbers and items that the series of a group lack, ascending, each with the series that lack it.

    Series that have failed or crashed by then are left out.
    """
    for number in sorted(frozenset().union(*(one.wanted for one in group))):
        due = [one for one in group if number in one.wanted and one.member.active]
        if due:
            yield number, due[0].items[number], due


def windows_of(series: OpenSeries) -> tuple[str, int, int]:
    """What the windows of a series are cut from, and how: equal for series of the same windows."""
    spec = series.spec
    return str(series.member.run.job.path("text")), spec.prompt_tokens, spec.continuation_tokens
