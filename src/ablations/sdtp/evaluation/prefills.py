"""Prefill times of arms side by side, against the unpruned model's in the same rounds."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from tqdm import tqdm

from ablations.lm.cache import StaticCache
from ablations.lm.corpus import Window
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import Round, device_lock, timed_rounds
from ablations.sdtp.evaluation.crash import arm_at_work, arm_failures
from ablations.sdtp.evaluation.series import OpenSeries, by_item, windows_of
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.scores.importance import Prompt
from ablations.specs.sdtp.evaluate import PrefillSample, PrefillSeries
from ablations.specs.sdtp.timing import TimedPair

TimedSeries = OpenSeries[PrefillSeries, Window]


class WarmUp:
    """Untimed prefills before timed ones: nothing is timed that has not run with the same rows before.

    The first prefill with given numbers of rows is slower, since kernels are made for them. With top-k only
    the first prompt of a series has new numbers; rules that count by scores have others on each prompt.
    """

    def __init__(self) -> None:
        self._unpruned = False
        self._warm: set[TimedSeries] = set()

    def run(
        self,
        unpruned: Callable[[], object],
        arms: Mapping[TimedSeries, Callable[[], object]],
        at_work: Callable[[TimedSeries], AbstractContextManager[None]],
    ) -> list[TimedSeries]:
        """Run what needs it on a prompt; return the series whose arms did not fail."""
        if not self._unpruned:
            for _ in range(next(iter(arms)).spec.warmup):
                unpruned()
            self._unpruned = True
        for series, arm in arms.items():
            if series not in self._warm or series.arm.pruning.selection != "top_k":
                with at_work(series):
                    for _ in range(series.spec.warmup):
                        arm()
                self._warm.add(series)
        return [series for series in arms if series.member.active]


def rounds_of(series: TimedSeries) -> tuple[Hashable, ...]:
    """Equal for series of the same windows and as many timed and untimed prefills."""
    return *windows_of(series), series.spec.repeats, series.spec.warmup


def pairs_of(rounds: Iterable[Round]) -> tuple[TimedPair, ...]:
    """Seconds of the rounds of one arm."""
    return tuple(TimedPair(arm=row.arm[1], reference=row.reference[1], again=row.again) for row in rounds)


def measure_prefills(lm: LayeredLM, group: Sequence[TimedSeries], bar: tqdm) -> None:
    """Time the prefills of arms on the same windows.

    Args:
        lm: Model of all.
        group: Series of the same windows, with as many rounds and untimed prefills.
        bar: Advances by one per series and window.
    """
    tokens = group[0].spec.prompt_tokens
    cache, unpruned_cache = lm.new_cache(tokens), lm.new_cache(tokens)
    warm_up = WarmUp()
    for number, window, due in by_item(group):
        prompt = Prompt(window.ids[:tokens].to(lm.device), number)
        unpruned = partial(_unpruned, lm, prompt, unpruned_cache)
        arms = {series: partial(_pruned, series, prompt, cache) for series in due}

        def at_work(
            series: TimedSeries, number: int = number, unpruned: Callable[[], None] = unpruned
        ) -> AbstractContextManager[None]:
            return arm_at_work(series.member, number, unpruned)

        bar.set_postfix_str(f"{len(due)} prefills of '{window.document}'", refresh=False)
        with device_lock(lm.device):
            warm = warm_up.run(unpruned, arms, at_work)
            ready = {series: arms[series] for series in warm}
            rounds = timed_rounds(lm.device, unpruned, ready, at_work, group[0].spec.repeats, number)
        for series, measured in rounds.items():
            with series.member.at_work():
                sample = PrefillSample(document=window.document, pairs=pairs_of(measured))
                series.member.add(number, sample)
        bar.update(len(due))


def _unpruned(lm: LayeredLM, prompt: Prompt, cache: StaticCache) -> None:
    """Prefill with the unpruned model: the arm's code without stages."""
    cache.truncate(0)
    prefill(lm, prompt.ids, cache)


def _pruned(series: TimedSeries, prompt: Prompt, cache: StaticCache) -> None:
    with arm_failures():
        series.arm.prefill(prompt, cache)
