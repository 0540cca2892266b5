"""One arm over the ranks of a pipeline, on the held-out windows: quality, traffic and times."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ablations.lm.corpus import Window
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.evaluation.heldout import UnprunedReference
from ablations.sdtp.evaluation.timed import timed_prefills
from ablations.sdtp.pipeline.group import Member, all_locks, barrier
from ablations.sdtp.pipeline.partition import partition
from ablations.sdtp.pipeline.rank import Rank, RankPrefill
from ablations.sdtp.pruned.continuation import Quality, quality
from ablations.sdtp.pruned.prefill import no_scores
from ablations.sdtp.pruned.pruning import DENSE
from ablations.specs.sdtp.evaluate import EvaluateSpec, RankTime
from ablations.specs.sdtp.timing import TimedPair


@dataclass(frozen=True)
class RankSample:
    """Measurements of one rank on one window.

    Attributes:
        living: Tokens that entered each of the rank's layers.
        sent_bytes: Bytes of hidden states that the rank sent; 0 on the last rank.
        pairs: Times from the barrier before a prefill to the barrier after it, by the clock of the rank's
            host.
        time: Busy and idle time of the last timed pruned prefill; None if none was timed.
        quality: Quality of the continuation; None except on the last rank.
        kept: Surviving prompt indices; None except on the last rank.
    """

    living: tuple[int, ...]
    sent_bytes: int
    pairs: tuple[TimedPair, ...]
    time: RankTime | None
    quality: Quality | None
    kept: list[int] | None


class PipelineEvaluation:
    """Runs this rank's layers of an arm and of the unpruned model.

    Args:
        member: This process.
        arm: The arm, with hard mask, cascade and top-k.
        spec: Windows, timing and pipeline.
        reference: Results of the unpruned model on the same windows.

    Raises:
        UserError: the layers cannot be partitioned as the spec asks.
    """

    def __init__(
        self, member: Member, arm: PrunedArm, spec: EvaluateSpec, reference: UnprunedReference
    ) -> None:
        self.member = member
        self.arm = arm
        self.spec = spec
        self.reference = reference
        self._rank = Rank(member, arm.lm)
        layers = arm.lm.num_layers
        ranges = partition(layers, arm.pruning.layers, member.ranks, spec.pipeline.prune)
        self._layer_range = ranges[member.rank]
        self._dense_range = partition(layers, (), member.ranks, "before")[member.rank]
        windows = spec.windows
        self.cache = arm.lm.new_cache(windows.prompt_tokens + windows.continuation_tokens)
        # Of its own, since the arm's cache is still needed after the unpruned prefill that is timed last.
        self._dense_cache = arm.lm.new_cache(windows.prompt_tokens)

    def dense_prefill(self, ids: Tensor) -> RankPrefill:
        """Prefill with the unpruned model, the arm's code without stages; ends at a barrier."""
        result = self._rank.prefill(ids, DENSE, self._dense_range, no_scores, self._dense_cache)
        barrier()
        return result

    def window(self, number: int, window: Window) -> RankSample:
        """Evaluate one window on this rank; the first windows are timed, unless ranks share cores.

        Raises:
            UserError: the quality is NaN or infinite, or another rank ended.
        """
        tokens = self.spec.windows.prompt_tokens
        ids = window.ids.to(self.arm.lm.device)
        rank_prefill, pairs, time = self._prefill(ids[:tokens], number)
        sent_bytes = rank_prefill.sent_bytes
        living = tuple(self.cache.lengths[layer] for layer in self._layer_range.layers)
        continuation = ids[tokens:]
        states = self._rank.continuation_states(rank_prefill, continuation, self._layer_range, self.cache)
        if states is None:
            return RankSample(living, sent_bytes, pairs, time, None, None)
        reference = self.reference.states[number].to(self.arm.lm.device)
        result = quality(self.arm.lm, states, reference, continuation)
        result.require_finite(window.document, self.arm.lm.dtype)
        kept = rank_prefill.prefilled.kept.tolist()
        return RankSample(living, sent_bytes, pairs, time, result, kept)

    def _pruned_prefill(self, ids: Tensor, number: int) -> RankPrefill:
        scorer = self.arm.importance.scorer(ids, number)
        result = self._rank.prefill(ids, self.arm.pruning, self._layer_range, scorer, self.cache)
        barrier()
        return result

    def _prefill(
        self, ids: Tensor, number: int
    ) -> tuple[RankPrefill, tuple[TimedPair, ...], RankTime | None]:
        arm = partial(self._pruned_prefill, ids, number)
        timing = self.spec.timing
        if timing is None or number >= timing.documents or self.member.core_shortage:
            return arm(), (), None
        warmup = timing.warmup if number == 0 else 0
        with all_locks(self.member):
            # Each prefill ends at a barrier, so all ranks begin the next one together.
            dense = partial(self.dense_prefill, ids)
            last, pairs = timed_prefills(self.arm.lm.device, arm, dense, warmup, timing.repeats, number)
        result, seconds = last
        return result, pairs, RankTime(busy=result.busy, idle=max(0.0, seconds - result.busy))
