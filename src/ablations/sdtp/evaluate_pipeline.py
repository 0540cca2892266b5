"""Panel `evaluate_pipeline`: pruning configurations over several ranks; quality, traffic and prefill speed.

Prompts pass through the ranks one at a time, each in one piece (no micro-batches). Bytes are those of hidden
states; the prompt indices that are sent with them, eight bytes a token, are not counted. Peak memory is that
of the rank that uses most. Retrieval is not measured: ranks change where a prefill runs, not its result.
"""

import sys

from tqdm import tqdm

from ablations.core.artefact import Manifest
from ablations.core.errors import UserError
from ablations.core.panel import Panel, main
from ablations.core.record import read_contract
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import Arms
from ablations.sdtp.evaluation.heldout import Heldout
from ablations.sdtp.evaluation.prefills import rounds_of
from ablations.sdtp.evaluation.series import OpenSeries, grouped, heldout_items, windows_of
from ablations.sdtp.pipeline.environment import group_environment
from ablations.sdtp.pipeline.evaluation import PipelinePasses, arm_partition, ranks_at_work
from ablations.sdtp.pipeline.group import Peer, broadcast
from ablations.sdtp.pipeline.launcher import launch
from ablations.sdtp.pipeline.partition import partition
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.evaluate import PrefillSeries, PrunedSeries, Series, TextSeries


def evaluate_pipeline(panel: Panel[PrunedSeries]) -> None:
    """Measure the missing items of a panel's series over ranks, started once for all, and write their blocks.

    Raises:
        UserError: the model is missing or corrupt, two ranks share a GPU, or a rank failed.
    """
    ranks = next((m.spec.pipeline.ranks for m in panel.members if m.spec.pipeline is not None), 1)
    layers = read_contract(panel.first.job.path("model"), Manifest).facts["layers"]
    group = group_environment(ranks) if ranks > 1 else None
    if group is None or group.rank == 0:
        # Checked before the ranks start, since each of them takes seconds to load the model.
        for member in panel.members:
            with member.at_work():
                _require_partition(member.spec, layers, ranks)
        if group is None and not any(member.wanted() for member in panel.members):
            return
    launch(evaluate_ranks, panel, ranks)


def evaluate_ranks(panel: Panel[PrunedSeries], peer: Peer) -> None:
    """Measure the series on one rank; rank 0 decides what is missing, and writes."""
    missing = broadcast({member.run.job.digest: member.wanted() for member in panel.active})
    members = [member for member in panel.members if missing.get(member.run.job.digest)]
    if not members:
        return
    model = panel.first.job.path("model")
    lm = load_model(model, panel.first.spec.compute, peer.device)
    heldout, arms = Heldout(load_tokenizer(model)), Arms(lm)
    series: list[OpenSeries] = []
    for member in members:
        with ranks_at_work(peer, member):
            wanted = missing[member.run.job.digest]
            items, arm = heldout_items(member, lm, heldout, wanted), arms.load(member.run)
            arm_partition(member.spec, arm, lm.num_layers)
            one = OpenSeries(member, arm, items, frozenset(wanted))
        if member.active:
            series.append(one)
    layout = pack_linears(lm)
    texts = [one for one in series if isinstance(one.spec, TextSeries)]
    timed = [one for one in series if isinstance(one.spec, PrefillSeries)]
    if timed and peer.rank == 0 and peer.core_shortage:
        message = f"no times, only bytes: {peer.core_shortage}; use a larger machine"
        print(message, file=sys.stderr, flush=True)
    total = sum(len(one.wanted) for one in series)
    with tqdm(total=total, desc="evaluate over ranks", mininterval=2, disable=peer.rank > 0) as bar:
        passes = PipelinePasses(peer, lm, bar)
        for one in series if peer.rank == 0 else ():
            one.describe(layout, peer.device, lambda: passes.peak_memory)
        for group in grouped(texts, windows_of):
            passes.text(group)
        for group in grouped(timed, rounds_of):
            passes.prefills(group)


def _require_partition(spec: PrunedSeries, layers: int, ranks: int) -> None:
    """Check that a series runs over these ranks.

    Raises:
        UserError: the spec is one of a single process or of another number of ranks, or the layers cannot be
            partitioned as it asks.
    """
    if spec.pipeline is None:
        raise UserError("pipeline: null; a single process is for ablations.sdtp.evaluate")
    if spec.pipeline.ranks != ranks:
        raise UserError(f"pipeline.ranks: {spec.pipeline.ranks}, but its panel runs over {ranks}")
    if not isinstance(spec, TextSeries | PrefillSeries):
        raise UserError("retrieval is not measured over pipeline ranks")
    require_layers(spec.layers, layers)
    partition(layers, spec.layers, ranks, spec.pipeline.prune)


if __name__ == "__main__":
    main("ablations.sdtp.evaluate_pipeline", Series, evaluate_pipeline, __doc__)
