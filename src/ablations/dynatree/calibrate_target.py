"""Job: costs of the target's forwards."""

from collections.abc import Sequence
from statistics import median

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.core.job import Run, main
from ablations.dynatree.decoding import decode_autoregressive
from ablations.dynatree.prompts import read_prompts
from ablations.dynatree.verify import tree_mask
from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.lm.finite import NOT_FINITE, greedy_ids, require_finite
from ablations.lm.fused import fastest
from ablations.lm.graphs import cache_for, last_states
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import device_lock, stopwatch
from ablations.specs.dynatree.calibrate_target import TargetCostSpec, passes, prompt_lengths, row_counts
from ablations.specs.dynatree.costs import TARGET_FILE, TargetCosts


class Clock:
    """Times forwards of the target on one cache.

    Args:
        target: The model.
        text: ``[tokens]`` int64, at least as many as the longest prefix.
        prefixes: Tokens in the cache while forwards are timed.
        most_rows: Most rows of a forward.
    """

    def __init__(self, target: LayeredLM, text: Tensor, prefixes: tuple[int, ...], most_rows: int) -> None:
        self._target = target
        self._text = text
        longest = prefixes[-1] + most_rows
        self._cache = cache_for(target, longest, most_rows)
        # Nodes of a tree share positions, so a model may have fewer of them than the tree has rows.
        last = target.config.max_position_embeddings - 1
        self._positions = torch.arange(longest, device=text.device)[None].clamp(max=last)
        self._causal = torch.ones(most_rows, most_rows, dtype=torch.bool, device=text.device).tril()

    def verify(self, counts: list[int], prefixes: tuple[int, ...], repeats: int) -> list[list[float]]:
        """Seconds of a forward and its argmax, by prefix and number of rows; they never fall with the prefix.

        They may fall with the rows: on some processors a forward over three rows is faster than over one.
        """
        seconds: dict[tuple[int, int], list[float]] = {}
        for due in tqdm([counts, *passes(counts, repeats)], desc="verify costs", mininterval=2):
            for prefix in prefixes:
                self._cache.truncate(0)
                ids = self._text[None, :prefix]
                last_states(self._target, ids, self._positions[:, :prefix], None, self._cache)
                for rows in due:
                    elapsed = self._forward(rows, prefix)
                    if due is not counts:
                        seconds.setdefault((prefix, rows), []).append(elapsed)
        by_rows = [_rising([median(seconds[prefix, rows]) for prefix in prefixes]) for rows in counts]
        return [list(each) for each in zip(*by_rows, strict=True)]

    def _forward(self, rows: int, prefix: int) -> float:
        target = self._target

        def work() -> Tensor:
            mask = tree_mask(self._causal[:rows, :rows], prefix, target.dtype) if rows > 1 else None
            ids = self._text[None, torch.arange(rows, device=self._text.device) % len(self._text)]
            positions = self._positions[:, prefix : prefix + rows]
            return greedy_ids(target.head(last_states(target, ids, positions, mask, self._cache)))[0]

        greedy, elapsed = stopwatch(target.device, work)
        finite = bool((greedy != NOT_FINITE).all())
        require_finite(finite, f"the target's logits of {rows} rows", target.dtype)
        self._cache.truncate(prefix)
        return elapsed

    def prefill(self, lengths: list[int], repeats: int) -> list[float]:
        """Seconds from prompts of these lengths to their first new token."""
        seconds: dict[int, list[float]] = {length: [] for length in lengths}
        text = self._text.tolist()
        for repeat in tqdm(range(repeats + 1), desc="prefill costs", mininterval=2):
            for length in lengths:
                generation = decode_autoregressive(self._target, self._cache, text[:length], 1)
                if repeat:
                    seconds[length].append(generation.first_seconds)
        return _rising([median(seconds[length]) for length in lengths])


def _rising(seconds: Sequence[float]) -> list[float]:
    """Seconds, made non-decreasing; where each of some is less than those of others, it stays so."""
    return isotonic_regression(seconds).x.tolist()


@torch.inference_mode()
def run(run: Run[TargetCostSpec]) -> None:
    """Time forwards of the target, and write the artefact.

    Raises:
        UserError: an input is invalid, or the prompts hold fewer tokens than the longest prefix.
    """
    spec = run.spec
    device = configure(spec.compute)
    target, layout = fastest(load_model(run.job.path("model"), spec.compute, device))
    prompts = read_prompts(run.job, target, 0)
    text = torch.cat([window.ids for window in prompts]).to(device)
    longest = spec.prefixes[-1]
    if len(text) < longest:
        raise UserError(
            f"dynatree.calibration.prefixes: {longest} tokens, but the prompts hold {len(text)}; lower it"
        )
    target.require_positions(longest, "dynatree.calibration.prefixes")
    counts, lengths = row_counts(spec.most_rows), prompt_lengths(longest)
    clock = Clock(target, text, spec.prefixes, spec.most_rows)
    with device_lock(device):
        verify = clock.verify(counts, spec.prefixes, spec.repeats)
        prefill = clock.prefill(lengths, spec.repeats)
    costs = TargetCosts(
        rows=tuple(counts),
        prefixes=spec.prefixes,
        verify=tuple(map(tuple, verify)),
        prompt_tokens=tuple(lengths),
        prefill=tuple(prefill),
    )
    with new_artefact(run, {"weight_layout": layout, "autoregressive_rate": 1 / verify[0][0]}) as folder:
        write_text(folder / TARGET_FILE, costs.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main(
        "ablations.dynatree.calibrate_target", TargetCostSpec, run, "Measure what the target's forwards cost."
    )
