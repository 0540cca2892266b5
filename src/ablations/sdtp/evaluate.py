"""Panel `evaluate_sdtp`: quality and prefill speed of pruning configurations on held-out prompts.

The configurations share one model, and each prompt is read once by the unpruned one.
"""

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from ablations.core.errors import UserError
from ablations.core.panel import Member, Panel, main
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.device import configure, peak_memory_bytes
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import Arms
from ablations.sdtp.evaluation.heldout import Heldout
from ablations.sdtp.evaluation.prefills import measure_prefills, rounds_of
from ablations.sdtp.evaluation.quality import measure_retrieval, measure_text
from ablations.sdtp.evaluation.series import OpenSeries, grouped, heldout_items, windows_of
from ablations.specs.sdtp.evaluate import PrefillSeries, PrunedSeries, RetrievalSeries, Series, TextSeries


def evaluate(panel: Panel[PrunedSeries]) -> None:
    """Measure the missing items of a panel's series, and write their blocks, also where an arm crashes.

    Raises:
        UserError: the model is missing or corrupt, or its own results are not finite.
    """
    if not any(member.wanted() for member in panel.members):
        return
    compute = panel.first.spec.compute
    device = configure(compute)
    model = panel.first.job.path("model")
    lm, heldout = load_model(model, compute, device), Heldout(load_tokenizer(model))
    series = _open(panel.members, lm, heldout)
    layout = pack_linears(lm)
    for one in series:
        one.describe(layout, device, lambda: peak_memory_bytes(device))
    with tqdm(total=sum(len(one.wanted) for one in series), desc="evaluate", mininterval=2) as bar:
        for group in grouped(_of(series, TextSeries), windows_of):
            measure_text(lm, group, bar)
        for group in grouped(_of(series, RetrievalSeries), _prompts_of):
            measure_retrieval(lm, group, bar)
        for group in grouped(_of(series, PrefillSeries), rounds_of):
            measure_prefills(lm, group, bar)


def _open(members: Sequence[Member[PrunedSeries]], lm: LayeredLM, heldout: Heldout) -> list[OpenSeries]:
    """The series that lack items, with their arms, from a model whose weights are not packed yet."""
    arms = Arms(lm)
    series: list[OpenSeries] = []
    for member in members:
        with member.at_work():
            if member.spec.pipeline is not None:
                raise UserError("pipeline: several ranks are for ablations.sdtp.evaluate_pipeline")
            if wanted := member.wanted():
                items = heldout_items(member, lm, heldout, wanted)
                series.append(OpenSeries(member, arms.load(member.run), items, frozenset(wanted)))
    return series


def _of(series: Sequence[OpenSeries], kind: type) -> list[OpenSeries]:
    return [one for one in series if isinstance(one.spec, kind)]


def _prompts_of(series: OpenSeries) -> tuple[Any, ...]:
    return str(series.member.run.job.path("text")), series.spec.prompts


if __name__ == "__main__":
    main("ablations.sdtp.evaluate", Series, evaluate, __doc__)
