"""The order in which a training sees its windows."""

from itertools import zip_longest
from math import ceil

import torch
from torch import Tensor

from ablations.sdtp.scores.table import SaliencyTable
from ablations.specs.sdtp.train import PrunerSpec


def shuffled_batches(table: SaliencyTable, spec: PrunerSpec) -> tuple[list[Tensor], list[Tensor]]:
    """Windows of every step of the warm-up and of the masked passes, ``[batch]`` int64 each.

    Every pass is shuffled anew. In a masked pass windows of text and of retrieval take turns while both last,
    so of a part of a pass they have equal shares. The masked passes do not depend on the warm-up: trainings
    that differ in it, and so in their losses, see the same windows in the same order.
    """
    windows = (~table.heldout).nonzero()[:, 0]
    is_text = torch.tensor([kind == "text" for kind in table.kinds])[windows]
    generator = torch.Generator().manual_seed(spec.seed)

    def shuffled(group: Tensor) -> Tensor:
        return group[torch.randperm(len(group), generator=generator)]

    masked: list[int] = []
    for _ in range(ceil(spec.epochs)):
        groups = (shuffled(windows[chosen]).tolist() for chosen in (is_text, ~is_text))
        masked += [window for turn in zip_longest(*groups) for window in turn if window is not None]
    masked = masked[: spec.masked_windows(len(windows))]
    warmup = [shuffled(windows).split(spec.batch) for _ in range(spec.warmup_epochs)]
    return [batch for batches in warmup for batch in batches], [*torch.tensor(masked).split(spec.batch)]
