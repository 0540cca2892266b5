"""Job `calibrate`: what makes another selection rule keep, on average, as many tokens as top-k."""

from collections.abc import Callable, Sequence
from statistics import fmean

import torch
from torch import Tensor
from tqdm import tqdm

from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus, windows
from ablations.lm.device import configure
from ablations.lm.packing import pack_linears
from ablations.sdtp.pruned.living import begin
from ablations.sdtp.pruned.pruning import CALIBRATION_FILE, Pruning
from ablations.sdtp.pruned.selection import (
    require_layers,
    select,
    threshold_count,
    top_p_count,
    unprotected,
)
from ablations.sdtp.scores.pruner import open_pruner
from ablations.study.artefact import new_artefact
from ablations.study.contracts.sdtp import Calibration, CalibrationSpec, Protected
from ablations.study.errors import UserError
from ablations.study.files import write_text
from ablations.study.job import Run, main

# Halvings of the interval from zero to one, after which a probability mass is known to 1e-9.
BISECTIONS = 30


def find_mass(scores: Sequence[Tensor], count: int, protected: Protected) -> float:
    """Probability mass for which top-p keeps `count` rows of each prompt on average, as nearly as it can.

    Args:
        scores: Per prompt ``[rows]`` float.
        count: Rows to keep, protected ones included.
        protected: Rows that are kept whatever their score.
    """

    def kept(mass: float) -> float:
        return fmean(top_p_count(row, mass, protected) for row in scores)

    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) < count else (low, middle)
    return min((low, high), key=lambda mass: abs(kept(mass) - count))


def find_bound(scores: Sequence[Tensor], count: int, protected: Protected) -> float:
    """Lowest score to keep for `count` rows of each prompt on average (arguments as `find_mass`)."""
    free = torch.cat([unprotected(row, protected) for row in scores])
    wanted = count * len(scores) - (sum(row.shape[0] for row in scores) - free.shape[0])
    if wanted <= 0:
        return torch.nextafter(free.amax(), free.new_tensor(torch.inf)).item()
    return free.sort(descending=True).values[min(wanted, free.shape[0]) - 1].item()


RULES: dict[str, tuple[Callable[..., float], Callable[..., int]]] = {
    "top_p": (find_mass, top_p_count),
    "threshold": (find_bound, threshold_count),
}


@torch.inference_mode()
def calibrate(run: Run[CalibrationSpec]) -> None:
    """Calibrate a rule stage by stage on validation prompts: each stage sees what the ones before it left.

    Raises:
        UserError: an input is missing, corrupt or made for something else, the model lacks a layer, prompts
            are longer than it allows, or so short that nothing could be pruned.
    """
    spec = run.spec
    device = configure(spec.compute)
    _require_prompt(spec)
    tokenizer = load_tokenizer(run.job.path("model"))
    prompts = windows(read_corpus(run.job.path("text")), tokenizer, "validation", spec.documents, spec.tokens)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    lm.require_positions(spec.tokens, "evaluation.prompt_tokens")
    pruner, _, _ = open_pruner(run.job.path("pruner"), spec.layers, device)
    pack_linears(lm)
    find, count_of = RULES[spec.selection]
    pruning = Pruning(spec.layers, spec.keep_ratios, spec.preserve)
    counts, protected = pruning.counts(spec.tokens), spec.preserve.of(spec.tokens)
    livings = [begin(lm, pruning, prompt.ids.to(device)) for prompt in prompts]
    values, means = [], []
    start = 0
    with tqdm(total=len(livings) * len(spec.layers), desc="calibrate", mininterval=2) as bar:
        for stage, layer in enumerate(spec.layers):
            scores = []
            for living in livings:
                for index in range(start, layer):
                    living.layer(index, None)
                scores.append(pruner(stage, living.candidates()[0]))
                bar.update()
            start = layer
            values.append(find(scores, counts[stage], protected))
            kept = [count_of(row, values[-1], protected) for row in scores]
            means.append(fmean(kept))
            for living, row, count in zip(livings, scores, kept, strict=True):
                living.keep(select(row, count, protected))
    found = Calibration(values=tuple(values), counts=counts, mean_kept=tuple(means))
    with new_artefact(run, {"prompts": len(prompts), "mean_kept": means}) as folder:
        write_text(folder / CALIBRATION_FILE, found.model_dump_json(indent=1) + "\n")


def _require_prompt(spec: CalibrationSpec) -> None:
    protected = spec.preserve.of(spec.tokens).tokens
    if spec.tokens <= protected:
        raise UserError(
            f"evaluation.prompt_tokens: {spec.tokens} is not more than preserve.head + preserve.tail"
            f" ({protected}), so nothing could be pruned; raise it or lower preserve"
        )


if __name__ == "__main__":
    main("ablations.sdtp.calibrate", CalibrationSpec, calibrate, __doc__)
