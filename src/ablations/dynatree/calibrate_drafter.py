"""Jobs `calibrate_drafter`: how often what drafters propose turns out right, on validation prompts."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.core.job import Run
from ablations.core.panel import Panel, main
from ablations.dynatree.acceptance import MIN_PATH_PROBABILITY, acceptance_curve
from ablations.dynatree.decoding import Draft
from ablations.dynatree.drafters.build import ACCEPTANCE_FILE, Loaded, build_drafter
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.replay import replay
from ablations.dynatree.traced import on_traces
from ablations.dynatree.traces import Trace
from ablations.dynatree.tree import TokenTree
from ablations.specs.dynatree.calibrate_drafter import Acceptance, AcceptanceSpec


def calibrate(panel: Panel[AcceptanceSpec]) -> None:
    """Replay each drafter alone on the validation prompts, and write what was accepted.

    A drafter fails alone if an input is invalid or nothing is drafted.

    Raises:
        UserError: the target is missing or corrupt.
    """
    on_traces(panel, panel.first.spec.compute, _calibrate)


def _calibrate(run: Run[AcceptanceSpec], loaded: Loaded, traces: Sequence[Trace]) -> None:
    spec = run.spec
    capacity = max(len(trace.prompt) for trace in traces) + spec.new_tokens
    drafter = build_drafter(
        spec.drafter, run.job.path, loaded, capacity, spec.max_nodes, spec.shape.branching
    )
    growth = FixedGrowth(spec.shape.depth, spec.shape.branching, MIN_PATH_PROBABILITY)
    draft = Draft(drafter, TokenTree(spec.max_nodes, loaded.target.device), growth)
    stated, accepted = [], []
    for trace in tqdm(traces, desc="replay", mininterval=2):
        for one in replay(draft, trace, spec.new_tokens):
            stated.append(one.conditional[one.is_tested])
            accepted.append(one.is_accepted[one.is_tested])
    if not sum(map(len, stated)):
        raise UserError("dynatree.calibration.prompts: nothing was drafted on them; use more or longer ones")
    curve = acceptance_curve(torch.cat(stated).cpu().numpy(), torch.cat(accepted).cpu().numpy())
    found = Acceptance(stated=tuple(curve[0]), accepted=tuple(curve[1]))
    with new_artefact(run, {"proposals": sum(map(len, stated))}) as folder:
        write_text(folder / ACCEPTANCE_FILE, found.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.dynatree.calibrate_drafter", AcceptanceSpec, calibrate, __doc__)
