"""One arm on the held-out prompts: quality, and prefill time against the unpruned model's."""

from functools import partial

from torch import Tensor

from ablations.lm.corpus import Window
from ablations.lm.timing import device_lock
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.evaluation.crash import arm_failures
from ablations.sdtp.evaluation.heldout import UnprunedReference
from ablations.sdtp.evaluation.retrieval import Passkey, probe
from ablations.sdtp.evaluation.timed import timed_prefills
from ablations.sdtp.pruned.continuation import continuation_states, quality
from ablations.sdtp.pruned.prefill import Prefilled, prefill
from ablations.specs.sdtp.evaluate import EvaluateSpec, RetrievalProbe, SdtpSample
from ablations.specs.sdtp.timing import TimedPair


class Evaluation:
    """Runs an arm window by window, and collects what its totals are computed from.

    Attributes:
        cache: Keys and values of the arm.
        kept: Surviving prompt indices of each window.
        flops: Prefill FLOPs of each window.

    Args:
        arm: The arm.
        spec: Windows, passkeys and timing.
        reference: Results of the unpruned model on the same prompts.
        capacity: Rows of the cache.
    """

    def __init__(
        self, arm: PrunedArm, spec: EvaluateSpec, reference: UnprunedReference, capacity: int
    ) -> None:
        self.arm = arm
        self.spec = spec
        self.reference = reference
        self.cache = arm.lm.new_cache(capacity)
        # Of its own, since the arm's cache is still needed after the unpruned prefill that is timed last.
        self._reference_cache = arm.lm.new_cache(spec.windows.prompt_tokens)
        self.kept: list[list[int]] = []
        self.flops: list[int] = []

    def window(self, number: int, window: Window) -> SdtpSample:
        """Evaluate window `number`. The first windows are timed; the last timed prefill is then evaluated.

        Raises:
            ArmCrashError: the pruned prefill or its continuation raised.
            UserError: the quality is NaN or infinite.
        """
        tokens = self.spec.windows.prompt_tokens
        ids = window.ids.to(self.arm.lm.device)
        prefilled, pairs = self._prefill(ids[:tokens], number)
        rows = tuple(self.cache.lengths)
        lm, continuation = self.arm.lm, ids[tokens:]
        with arm_failures():
            states = continuation_states(lm, prefilled, self.cache, continuation)
        result = quality(lm, states, self.reference.states[number].to(lm.device), continuation)
        result.require_finite(window.document, lm.dtype)
        self.kept.append(prefilled.kept.tolist())
        self.flops.append(self.arm.flops(tokens, rows, prefilled.scored))
        return SdtpSample(
            document=window.document,
            prompt_tokens=tokens,
            nll=result.nll,
            reference_nll=self.reference.rows[number].nll,
            agreement=result.agreement,
            kl=result.kl,
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
        with arm_failures():
            prefilled = self.arm.prefill(ids, len(self.reference.rows) + number, self.cache)
            hit, nll = probe(self.arm.lm, prefilled, self.cache, answer)
        reference = self.reference.probes[number]
        return RetrievalProbe(
            depth=key.depth, hit=hit, nll=nll, reference_hit=reference.hit, reference_nll=reference.nll
        )

    def dense_prefill(self, ids: Tensor) -> Prefilled:
        """Prefill with the unpruned model: the arm's code without stages."""
        self._reference_cache.truncate(0)
        return prefill(self.arm.lm, ids, self._reference_cache)

    def _prefill(self, ids: Tensor, number: int) -> tuple[Prefilled, tuple[TimedPair, ...]]:
        def arm() -> Prefilled:
            with arm_failures():
                return self.arm.prefill(ids, number, self.cache)

        timing = self.spec.timing
        if timing is None or number >= timing.documents:
            return arm(), ()
        # The first prefill with given numbers of rows is slower, since kernels are made for them. With top-k
        # only the first prompt has new numbers; rules that count by scores have others on each prompt.
        new_row_counts = not self.kept or self.arm.pruning.selection != "top_k"
        warmup = timing.warmup if new_row_counts else 0
        with device_lock(self.arm.lm.device):
            dense = partial(self.dense_prefill, ids)
            last, pairs = timed_prefills(self.arm.lm.device, arm, dense, warmup, timing.repeats, number)
        return last[0], pairs
