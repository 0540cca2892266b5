"""Panels of jobs that work with one target and its greedy continuations of their prompts."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch

from ablations.core.job import JobFile, Run
from ablations.core.panel import Panel
from ablations.dynatree.drafters.build import Loaded
from ablations.dynatree.prompts import read_prompts
from ablations.dynatree.traces import Trace, greedy_traces
from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.lm.fused import fastest
from ablations.specs.dynatree.prompts import Prompted
from ablations.specs.lm import Compute

Spec = TypeVar("Spec", bound=Prompted)


@torch.inference_mode()
def on_traces(
    panel: Panel[Spec], compute: Compute, work: Callable[[Run[Spec], Loaded, Sequence[Trace]], None]
) -> None:
    """Do the jobs of a panel that lack a result, each at work while its turn lasts.

    The target is loaded once, and continues the prompts once that several jobs have. A job fails alone if an
    input is invalid.

    Args:
        panel: Jobs on one target.
        compute: How they compute.
        work: Does one, with the target and with its continued prompts.

    Raises:
        UserError: the target is missing or corrupt.
    """
    device = configure(compute)
    loaded: Loaded | None = None
    read: dict[Hashable, list[Trace]] = {}
    for member in panel.due():
        if loaded is None:
            target, _ = fastest(load_model(panel.first.job.path("model"), compute, device))
            loaded = Loaded(target, compute)
        with member.at_work():
            job: JobFile[Any] = member.run.job
            spec = member.spec
            key = (spec.prompts, spec.new_tokens, *(job.path(chosen.text) for chosen in spec.prompts))
            if key not in read:
                windows = read_prompts(job, loaded.target, spec.new_tokens)
                read[key] = list(greedy_traces(loaded.target, windows, spec.new_tokens))
            work(member.run, loaded, read[key])
