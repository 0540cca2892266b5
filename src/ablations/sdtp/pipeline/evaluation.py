"""Arms over the ranks of a pipeline, side by side on the held-out windows: quality, traffic and times."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed
from tqdm import tqdm

from ablations.core.errors import UserError
from ablations.core.panel import Member
from ablations.lm.cache import StaticCache
from ablations.lm.corpus import Window
from ablations.lm.device import peak_memory_bytes
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import Round, stopwatch, timed_rounds
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.evaluation.prefills import TimedSeries, WarmUp, pairs_of
from ablations.sdtp.evaluation.quality import unpruned_text
from ablations.sdtp.evaluation.series import OpenSeries, by_item
from ablations.sdtp.pipeline.group import Peer, all_locks, barrier, connection_errors, gather
from ablations.sdtp.pipeline.partition import LayerRange, partition
from ablations.sdtp.pipeline.rank import Rank, RankPrefill
from ablations.sdtp.pruned.continuation import Quality, log_probabilities, quality
from ablations.sdtp.pruned.cost import kv_bytes, planned_rows
from ablations.sdtp.pruned.prefill import no_scores
from ablations.sdtp.pruned.pruning import DENSE
from ablations.sdtp.scores.importance import Prompt
from ablations.specs.sdtp.evaluate import PrefillSample, PrunedSeries, RankTime, TextSample, TextSeries

_END = -1


@contextmanager
def ranks_at_work(peer: Peer, member: Member[Any]) -> Iterator[None]:
    """Work on a series in all ranks; a `UserError` in one of them ends the series in all.

    The block must raise a `UserError` only where the other ranks wait for nothing of this one.
    """
    with member.at_work() if peer.rank == 0 else nullcontext():
        message = None
        try:
            yield
        except UserError as error:
            message = str(error)
        failure = next((text for text in gather(message) if text is not None), None)
        if failure is not None and peer.rank == 0:
            raise UserError(failure)
        if failure is not None:
            member.failure = failure


@dataclass(frozen=True)
class RankText:
    """Measurements of one rank on one window.

    Attributes:
        living: Tokens that entered each of the rank's layers.
        sent_bytes: Bytes of hidden states that the rank sent; 0 on the last rank.
        quality: Quality of the continuation; None except on the last rank.
        reference_nll: NLL of the continuation after the unpruned prompt; None except on the last rank.
        kept: Surviving prompt indices; None except on the last rank.
    """

    living: tuple[int, ...]
    sent_bytes: int
    quality: Quality | None = None
    reference_nll: float | None = None
    kept: list[int] | None = None


class PipelinePasses:
    """Measures series over ranks; all ranks must call every method together.

    Attributes:
        peak_memory: Peak memory so far in bytes, of the rank that uses most; up to date on all ranks.

    Args:
        peer: This process.
        lm: Model.
        bar: Advances by one per series and window.
    """

    def __init__(self, peer: Peer, lm: LayeredLM, bar: tqdm) -> None:
        self.peak_memory = 0
        self._peer = peer
        self._lm = lm
        self._bar = bar
        self._rank = Rank(peer, lm)

    def text(self, group: Sequence[OpenSeries[TextSeries, Window]]) -> None:
        """Measure quality and traffic of arms on the same windows.

        The unpruned model reads them on the last rank alone, which compares with it.

        Raises:
            UserError: the NLL of the unpruned model is NaN or infinite.
            LostRankError: another rank ended.
        """
        lm, peer, spec = self._lm, self._peer, group[0].spec
        tokens = spec.prompt_tokens
        capacity = tokens + spec.continuation_tokens
        cache, unpruned_cache = lm.new_cache(capacity), lm.new_cache(capacity)
        sent: list[int] = []
        for number, window, due in by_item(group):
            ids = window.ids.to(lm.device)
            if not sent:
                # They follow from the length of the prompt alone.
                sent = self._gather(self._unpruned_prefill(ids[:tokens], unpruned_cache).sent_bytes)
            prompt = Prompt(ids[:tokens], number, ids[tokens:])
            unpruned = unpruned_text(lm, prompt, window.document, unpruned_cache) if peer.last else None
            for one in due:
                self._bar.set_postfix_str(one.member.label, refresh=False)
                with ranks_at_work(peer, one.member):
                    layer_range = self._layer_range(one)
                    result = self._pruned_prefill(one, layer_range, prompt, cache)
                    living = tuple(cache.lengths[layer] for layer in layer_range.layers)
                    text = RankText(living, result.sent_bytes)
                    states = self._rank.continuation_states(result, prompt.following, layer_range, cache)
                    if unpruned is not None:
                        predicted = log_probabilities(lm, states)
                        compared = quality(predicted, unpruned.log_probabilities, prompt.following)
                        compared.require_finite(window.document, lm.dtype)
                        kept = result.prefilled.kept.tolist()
                        text = RankText(living, 0, compared, unpruned.nll, kept)
                if one.member.active:
                    texts = self._gather(text)
                    if peer.rank == 0:
                        with one.member.at_work():
                            sample = _text_sample(one, window, texts, sent[:-1], cache)
                            row = {"document": window.document, "kept": texts[-1].kept}
                            one.member.add(number, sample, row)
                self._bar.update()

    def prefills(self, group: Sequence[TimedSeries]) -> None:
        """Time the prefills of arms on the same windows; with too few cores nothing is timed.

        Raises:
            LostRankError: another rank ended.
        """
        lm, peer, spec = self._lm, self._peer, group[0].spec
        tokens = spec.prompt_tokens
        cache, unpruned_cache = lm.new_cache(tokens), lm.new_cache(tokens)
        ranges = {one: self._layer_range(one) for one in group}
        warm_up = WarmUp()
        for number, window, due in by_item(group):
            prompt = Prompt(window.ids[:tokens].to(lm.device), number)
            self._bar.set_postfix_str(f"{len(due)} prefills of '{window.document}'", refresh=False)
            rounds: Mapping[TimedSeries, list[Round[RankPrefill]]] = {}
            times: list[list[RankTime]] = []
            if not peer.core_shortage:
                unpruned = partial(self._unpruned_prefill, prompt.ids, unpruned_cache)
                arms = {one: partial(self._pruned_prefill, one, ranges[one], prompt, cache) for one in due}
                with all_locks(peer):
                    warm_up.run(unpruned, arms, self._at_work)
                    rounds, own = self._timed(unpruned, arms, spec.repeats, number)
                times = self._gather([own[one] for one in due])
            for index, one in enumerate(due if peer.rank == 0 else ()):
                with one.member.at_work():
                    sample = PrefillSample(
                        document=window.document,
                        # The first rank's: a prompt enters there, and the barrier waits for the last rank.
                        pairs=pairs_of(rounds.get(one, ())),
                        ranks=tuple(rank[index] for rank in times),
                    )
                    one.member.add(number, sample)
            self._bar.update(len(due))

    def _timed(
        self,
        unpruned: Callable[[], RankPrefill],
        arms: Mapping[TimedSeries, Callable[[], RankPrefill]],
        rounds: int,
        number: int,
    ) -> tuple[dict[TimedSeries, list[Round[RankPrefill]]], dict[TimedSeries, RankTime]]:
        """Time prefills in the order that rank 0 chooses by its clock, and tells the others.

        Returns:
            The rounds of each arm (on rank 0, otherwise nothing), and how this rank spent its last prefill.
        """
        peer, names, prefills = self._peer, list(arms), [*arms.values(), unpruned]
        times: dict[TimedSeries, RankTime] = {}

        def led(index: int) -> RankPrefill:
            _tell(index)
            return prefills[index]()

        if peer.rank == 0:
            leading = {name: partial(led, index) for index, name in enumerate(names)}
            last = partial(led, len(names))
            measured = timed_rounds(peer.device, last, leading, self._at_work, rounds, number)
            _tell(_END)
            return measured, {name: _rank_time(*done[-1].arm) for name, done in measured.items()}
        while (index := _tell()) != _END:
            result, seconds = stopwatch(peer.device, prefills[index])
            if index < len(names):
                times[names[index]] = _rank_time(result, seconds)
        return {}, times

    def _at_work(self, series: TimedSeries) -> AbstractContextManager[None]:
        """A context in which a series is at work on rank 0."""
        return series.member.at_work() if self._peer.rank == 0 else nullcontext()

    def _unpruned_prefill(self, ids: Tensor, cache: StaticCache) -> RankPrefill:
        """Prefill with the unpruned model, the arm's code without stages; ends at a barrier."""
        layer_range = partition(self._lm.num_layers, (), self._peer.ranks, "before")[self._peer.rank]
        result = self._rank.prefill(ids, DENSE, layer_range, no_scores, cache)
        barrier()
        return result

    def _pruned_prefill(
        self, series: OpenSeries, layer_range: LayerRange, prompt: Prompt, cache: StaticCache
    ) -> RankPrefill:
        """Prefill with an arm; ends at a barrier, so that all ranks begin the next prefill together."""
        arm = series.arm
        scorer = arm.importance.scorer(prompt)
        result = self._rank.prefill(prompt.ids, arm.pruning, layer_range, scorer, cache)
        barrier()
        return result

    def _layer_range(self, series: OpenSeries) -> LayerRange:
        return arm_partition(series.spec, series.arm, self._lm.num_layers)[self._peer.rank]

    def _gather(self, value: Any) -> list:
        """The values of all ranks, and their peak memory with them."""
        values, peaks = zip(*gather((value, peak_memory_bytes(self._peer.device))), strict=True)
        self.peak_memory = max(self.peak_memory, *peaks)
        return list(values)


def arm_partition(spec: PrunedSeries, arm: PrunedArm, layers: int) -> tuple[LayerRange, ...]:
    """Layers and stages of each rank."""
    return partition(layers, arm.pruning.layers, spec.pipeline.ranks, spec.pipeline.prune)


def _text_sample(
    series: OpenSeries[TextSeries, Window],
    window: Window,
    ranks: Sequence[RankText],
    reference_bytes: Sequence[int],
    cache: StaticCache,
) -> TextSample:
    """The sample of one window, from the measurements of all ranks."""
    arm, tokens, last = series.arm, series.spec.prompt_tokens, ranks[-1]
    living = tuple(rows for rank in ranks for rows in rank.living)
    _, scored = planned_rows(arm.pruning, tokens, arm.lm.num_layers)
    return TextSample(
        document=window.document,
        nll=last.quality.nll,
        reference_nll=last.reference_nll,
        agreement=last.quality.agreement,
        kl=last.quality.kl,
        living=living,
        flops=arm.flops(tokens, living, scored),
        kv_bytes=kv_bytes(cache, living),
        boundary_bytes=tuple(rank.sent_bytes for rank in ranks[:-1]),
        reference_boundary_bytes=tuple(reference_bytes),
    )


def _rank_time(prefill: RankPrefill, seconds: float) -> RankTime:
    return RankTime(busy=prefill.busy, idle=max(0.0, seconds - prefill.busy))


def _tell(index: int = _END) -> int:
    """Send `index` from rank 0 to all ranks; returns it on all."""
    message = torch.tensor([index])
    with connection_errors():
        distributed.broadcast(message, 0)
    return int(message.item())
