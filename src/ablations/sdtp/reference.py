"""Job `reference_sdtp`: the unpruned model on the held-out windows."""

from tqdm import tqdm

from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.sdtp.continuation import continuation_nll
from ablations.sdtp.heldout import REFERENCE_FILE, heldout_windows, require_positions
from ablations.sdtp.prefill import prefill
from ablations.study.artefact import new_artefact
from ablations.study.contracts.sdtp import Reference, ReferenceRow, ReferenceSpec
from ablations.study.files import write_text
from ablations.study.job import Run, main


def reference(run: Run[ReferenceSpec]) -> None:
    """Write the unpruned NLL of every held-out window.

    Raises:
        UserError: an input is missing or corrupt, or too few documents are long enough.
    """
    spec = run.spec
    device = configure(spec.compute)
    prompt_tokens = spec.windows.prompt_tokens
    chosen = heldout_windows(run, spec.windows)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_positions(lm, spec.windows)
    cache = lm.new_cache(prompt_tokens + spec.windows.continuation_tokens)
    rows = []
    for window in tqdm(chosen, desc="reference", mininterval=2):
        ids = window.ids.to(device)
        cache.truncate(0)
        prefilled = prefill(lm, ids[:prompt_tokens], cache)
        nll = continuation_nll(lm, prefilled, cache, ids[prompt_tokens:]).item()
        rows.append(ReferenceRow(document=window.document, nll=nll))
    facts = {"documents": len(rows), "nll": sum(row.nll for row in rows) / len(rows)}
    with new_artefact(run, facts) as folder:
        write_text(folder / REFERENCE_FILE, Reference(rows=tuple(rows)).model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.sdtp.reference", ReferenceSpec, reference, __doc__)
