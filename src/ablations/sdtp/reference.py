"""Job `reference_sdtp`: the unpruned model on the prompts that pruning configurations are evaluated on."""

import math
from collections.abc import Sequence

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.files import write_text
from ablations.core.job import Run, main
from ablations.lm.cache import StaticCache
from ablations.lm.checkpoint import load_model
from ablations.lm.corpus import Window
from ablations.lm.device import configure
from ablations.lm.finite import require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.heldout import (
    REFERENCE_FILE,
    STATES_FILE,
    heldout_passkeys,
    heldout_windows,
    require_positions,
)
from ablations.sdtp.evaluation.retrieval import Passkey, probe
from ablations.sdtp.pruned.continuation import continuation_states
from ablations.sdtp.pruned.prefill import prefill
from ablations.specs.sdtp.reference import Reference, ReferenceProbe, ReferenceRow, ReferenceSpec


def reference(run: Run[ReferenceSpec]) -> None:
    """Write the unpruned NLL and states of every held-out window, and the unpruned results on the passkeys.

    Raises:
        UserError: an input is missing or corrupt, too few documents are long enough, prompts are longer
            than the model's positions, or an NLL is not finite.
    """
    spec = run.spec
    device = configure(spec.compute)
    windows = heldout_windows(run, spec.windows)
    keys = heldout_passkeys(run, spec.retrieval)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_positions(lm, spec.windows)
    # With the layout of the arms, so that only pruning distinguishes them from the reference.
    layout = pack_linears(lm)
    longest = max((key.prompt.shape[0] + key.answer.shape[0] for key in keys), default=0)
    lm.require_positions(longest, "retrieval.tokens")
    cache = lm.new_cache(max(longest, spec.windows.prompt_tokens + spec.windows.continuation_tokens))
    with tqdm(total=len(windows) + len(keys), desc="reference", mininterval=2) as bar:
        rows, states = _windows(lm, cache, windows, spec.windows.prompt_tokens, bar)
        probes = _probes(lm, cache, keys, bar)
    facts = {
        "documents": len(rows),
        "nll": sum(row.nll for row in rows) / len(rows),
        "passkeys": len(probes),
        "passkeys_found": sum(row.hit for row in probes),
        "weight_layout": layout,
    }
    with new_artefact(run, facts) as folder:
        content = Reference(rows=tuple(rows), retrieval=tuple(probes))
        write_text(folder / REFERENCE_FILE, content.model_dump_json(indent=1) + "\n")
        save_file({"states": torch.stack(states)}, folder / STATES_FILE)


def _windows(
    lm: LayeredLM, cache: StaticCache, windows: Sequence[Window], prompt_tokens: int, bar: tqdm
) -> tuple[list[ReferenceRow], list[Tensor]]:
    rows, window_states = [], []
    for window in windows:
        ids = window.ids.to(lm.device)
        cache.truncate(0)
        prefilled = prefill(lm, ids[:prompt_tokens], cache)
        states = continuation_states(lm, prefilled, cache, ids[prompt_tokens:])
        nll = F.cross_entropy(lm.head(states[None])[0].float(), ids[prompt_tokens:]).item()
        require_finite(math.isfinite(nll), f"the NLL of document '{window.document}'", lm.dtype)
        rows.append(ReferenceRow(document=window.document, nll=nll))
        window_states.append(states.cpu())
        bar.update()
    return rows, window_states


def _probes(lm: LayeredLM, cache: StaticCache, keys: Sequence[Passkey], bar: tqdm) -> list[ReferenceProbe]:
    probes = []
    for key in keys:
        cache.truncate(0)
        prefilled = prefill(lm, key.prompt.to(lm.device), cache)
        hit, nll = probe(lm, prefilled, cache, key.answer.to(lm.device))
        probes.append(ReferenceProbe(depth=key.depth, hit=hit, nll=nll))
        bar.update()
    return probes


if __name__ == "__main__":
    main("ablations.sdtp.reference", ReferenceSpec, reference, __doc__)
