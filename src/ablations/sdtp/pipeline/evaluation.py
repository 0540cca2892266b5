"""One arm over the ranks of a pipeline on the held-out windows: quality, traffic, times."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ablations.lm.corpus import Window
from ablations.sdtp.evaluation.arm import Arm
from ablations.sdtp.evaluation.heldout import UnprunedReference
from ablations.sdtp.evaluation.timed import timed_prefills
from ablations.sdtp.pipeline.group import Member, all_locks, barrier
from ablations.sdtp.pipeline.partition import partition
from ablations.sdtp.pipeline.rank import Passed, Rank
from ablations.sdtp.pruned.continuation import Quality, quality
from ablations.sdtp.pruned.prefill import no_scores
from ablations.sdtp.pruned.pruning import DENSE
from ablations.study.contracts.sdtp import EvaluateSpec, RankTime, TimedPair


@dataclass(frozen=True)
class Share:
    """What one rank knows of one window.

    Attributes:
        living: Tokens that entered each of its layers.
        sent_bytes: Bytes of hidden states that it sent; 0 on the last rank.
        pairs: Times from the barrier before a prefill to the one after it, as this rank's host saw them.
        time: How it spent the last of these pruned prefills; None where none was timed.
        quality: On the last rank alone.
        kept: Surviving prompt indices, on the last rank alone.
    """

    living: tuple[int, ...]
    sent_bytes: int
    pairs: tuple[TimedPair, ...]
    time: RankTime | None
    quality: Quality | None
    kept: list[int] | None


class PipelineEvaluation:
    """Runs this rank's share of an arm and of the unpruned model.

    Args:
        member: This process.
        arm: The arm: hard mask, cascade, top-k.
        spec: What to evaluate it on.
        reference: The unpruned model on the same.

    Raises:
        UserError: the model cannot be spread as the spec asks.
    """

    def __init__(self, member: Member, arm: Arm, spec: EvaluateSpec, reference: UnprunedReference) -> None:
        self.member = member
        self.arm = arm
        self.spec = spec
        self.reference = reference
        self._rank = Rank(member, arm.lm)
        layers = arm.lm.num_layers
        self._part = partition(layers, arm.pruning.layers, member.ranks, spec.pipeline.prune)[member.rank]
        self._dense_part = partition(layers, (), member.ranks, "before")[member.rank]
        windows = spec.windows
        self.cache = arm.lm.new_cache(windows.prompt_tokens + windows.continuation_tokens)
        # The arm's cache must outlive the unpruned prefill that is timed after it.
        self._dense_cache = arm.lm.new_cache(windows.prompt_tokens)

    def dense_prefill(self, ids: Tensor) -> Passed:
        """The unpruned model: the same code without stages; the ranks end together."""
        passed = self._rank.prefill(ids, DENSE, self._dense_part, no_scores, self._dense_cache)
        barrier()
        return passed

    def window(self, number: int, window: Window) -> Share:
        """This rank's share of one window; the first windows are timed, unless ranks share cores.

        Raises:
            UserError: its quality is NaN or infinite, or another rank ended.
        """
        tokens = self.spec.windows.prompt_tokens
        ids = window.ids.to(self.arm.lm.device)
        passed, pairs, time = self._prefill(ids[:tokens], number)
        layers = self._part.layers
        living = tuple(self.cache.lengths[layer] for layer in layers)
        continuation = ids[tokens:]
        states = self._rank.continuation_states(passed, continuation, self._part, self.cache)
        if states is None:
            return Share(living, passed.sent_bytes, pairs, time, None, None)
        reference = self.reference.states[number].to(self.arm.lm.device)
        found = quality(self.arm.lm, states, reference, continuation)
        found.require_finite(window.document, self.arm.lm.dtype)
        return Share(living, passed.sent_bytes, pairs, time, found, passed.prefilled.kept.tolist())

    def _pruned_prefill(self, ids: Tensor, number: int) -> Passed:
        scorer = self.arm.importance.scorer(ids, number)
        passed = self._rank.prefill(ids, self.arm.pruning, self._part, scorer, self.cache)
        barrier()
        return passed

    def _prefill(self, ids: Tensor, number: int) -> tuple[Passed, tuple[TimedPair, ...], RankTime | None]:
        arm = partial(self._pruned_prefill, ids, number)
        timing = self.spec.timing
        if timing is None or number >= timing.documents or self.member.crowded:
            return arm(), (), None
        warmup = timing.warmup if number == 0 else 0
        with all_locks(self.member):
            # Each prefill ends at a barrier, so the next one finds all ranks at its beginning.
            dense = partial(self.dense_prefill, ids)
            last, pairs = timed_prefills(self.arm.lm.device, arm, dense, warmup, timing.repeats, number)
        passed, seconds = last
        return passed, pairs, RankTime(busy=passed.busy, idle=max(0.0, seconds - passed.busy))
