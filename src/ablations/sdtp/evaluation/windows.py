"""One arm on the held-out prompts: quality, and prefill time beside the unpruned model's."""

from functools import partial

from torch import Tensor

from ablations.lm.corpus import Window
from ablations.lm.timing import device_lock
from ablations.sdtp.evaluation.arm import Arm
from ablations.sdtp.evaluation.crash import own
from ablations.sdtp.evaluation.heldout import UnprunedReference
from ablations.sdtp.evaluation.retrieval import Passkey, probe
from ablations.sdtp.evaluation.timed import timed_prefills
from ablations.sdtp.pruned.continuation import continuation_states, quality
from ablations.sdtp.pruned.prefill import Prefilled, prefill
from ablations.study.contracts.sdtp import EvaluateSpec, RetrievalProbe, SdtpSample, TimedPair


class Evaluation:
    """Runs an arm and keeps what the totals need.

    Attributes:
        cache: Keys and values of the arm.
        kept: Surviving prompt indices of each window.
        flops: Prefill FLOPs of each window.

    Args:
        arm: The arm.
        spec: What to evaluate it on.
        reference: The unpruned model on the same.
        capacity: Rows that the cache must hold.
    """

    def __init__(self, arm: Arm, spec: EvaluateSpec, reference: UnprunedReference, capacity: int) -> None:
        self.arm = arm
        self.spec = spec
        self.reference = reference
        self.cache = arm.lm.new_cache(capacity)
        # The arm's cache must outlive the unpruned prefill that is timed after it.
        self._reference_cache = arm.lm.new_cache(spec.windows.prompt_tokens)
        self.kept: list[list[int]] = []
        self.flops: list[int] = []

    def window(self, number: int, window: Window) -> SdtpSample:
        """Evaluate window `number`; the first ones are timed, and their last timed prefill is evaluated.

        Raises:
            ArmCrashError: the pruned prefill or its continuation raised.
            UserError: its quality is NaN or infinite.
        """
        tokens = self.spec.windows.prompt_tokens
        ids = window.ids.to(self.arm.lm.device)
        prefilled, pairs = self._prefill(ids[:tokens], number)
        rows = tuple(self.cache.lengths)
        lm, continuation = self.arm.lm, ids[tokens:]
        states = own(partial(continuation_states, lm, prefilled, self.cache, continuation))
        found = quality(lm, states, self.reference.states[number].to(lm.device), continuation)
        found.require_finite(window.document, lm.dtype)
        self.kept.append(prefilled.kept.tolist())
        self.flops.append(self.arm.flops(tokens, rows, prefilled.scored))
        return SdtpSample(
            document=window.document,
            prompt_tokens=tokens,
            nll=found.nll,
            reference_nll=self.reference.rows[number].nll,
            agreement=found.agreement,
            kl=found.kl,
            living=rows,
            pairs=pairs,
        )

    def passkey(self, number: int, key: Passkey) -> RetrievalProbe:
        """Ask for one passkey after a pruned prompt.

        Raises:
            ArmCrashError: the pruned prefill or its continuation raised.
            UserError: the NLL is NaN or infinite.
        """
        device = self.arm.lm.device
        ids, answer = key.prompt.to(device), key.answer.to(device)
        prefilled = own(partial(self.arm.prefill, ids, len(self.reference.rows) + number, self.cache))
        hit, nll = own(partial(probe, self.arm.lm, prefilled, self.cache, answer))
        reference = self.reference.probes[number]
        return RetrievalProbe(
            depth=key.depth, hit=hit, nll=nll, reference_hit=reference.hit, reference_nll=reference.nll
        )

    def dense_prefill(self, ids: Tensor) -> Prefilled:
        """The unpruned model: the same code without stages."""
        self._reference_cache.truncate(0)
        return prefill(self.arm.lm, ids, self._reference_cache)

    def _prefill(self, ids: Tensor, number: int) -> tuple[Prefilled, tuple[TimedPair, ...]]:
        arm = partial(own, partial(self.arm.prefill, ids, number, self.cache))
        timing = self.spec.timing
        if timing is None or number >= timing.documents:
            return arm(), ()
        # What runs with its numbers of rows for the first time pays for kernels made on the way: with top-k
        # that is the first prompt alone, rules that count by scores have other numbers on each.
        fresh = not self.kept or self.arm.pruning.selection != "top_k"
        warmup = timing.warmup if fresh else 0
        with device_lock(self.arm.lm.device):
            dense = partial(self.dense_prefill, ids)
            last, pairs = timed_prefills(self.arm.lm.device, arm, dense, warmup, timing.repeats, number)
        return last[0], pairs
