"""Job `calibrate`: values with which a selection rule keeps, on average, as many tokens as top-k."""

from collections.abc import Callable, Sequence
from statistics import fmean

import torch
from torch import Tensor
from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.files import write_text
from ablations.core.job import Run, main
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus, windows
from ablations.lm.device import configure
from ablations.lm.packing import pack_linears
from ablations.sdtp.pruned.living import embed_prompt
from ablations.sdtp.pruned.pruning import CALIBRATION_FILE, Pruning
from ablations.sdtp.pruned.selection import select, threshold_count, top_p_count, unprotected
from ablations.sdtp.scores.trained import open_pruner
from ablations.specs.sdtp.calibrate import Calibration, CalibrationSpec
from ablations.specs.sdtp.counts import Protected, require_layers

# Halvings of the interval from zero to one; 30 give a probability mass to 1e-9.
BISECTIONS = 30


def find_mass(scores: Sequence[Tensor], count: int, protected: Protected) -> float:
    """Probability mass for which top-p keeps, on average, the number of rows nearest to `count`.

    Args:
        scores: Per prompt ``[rows]`` float.
        count: Rows to keep of each prompt, protected ones included.
        protected: Rows that are kept whatever their score.
    """

    def mean_kept(mass: float) -> float:
        return fmean(top_p_count(row, mass, protected) for row in scores)

    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_kept(middle) < count else (low, middle)
    return min((low, high), key=lambda mass: abs(mean_kept(mass) - count))


def find_bound(scores: Sequence[Tensor], count: int, protected: Protected) -> float:
    """Lowest score that is kept when `count` rows of a prompt are, on average (arguments as `find_mass`)."""
    free = torch.cat([unprotected(row, protected) for row in scores])
    free_kept = count * len(scores) - (sum(row.shape[0] for row in scores) - free.shape[0])
    if free_kept <= 0:
        return torch.nextafter(free.amax(), free.new_tensor(torch.inf)).item()
    return free.sort(descending=True).values[min(free_kept, free.shape[0]) - 1].item()


RULES: dict[str, tuple[Callable[..., float], Callable[..., int]]] = {
    "top_p": (find_mass, top_p_count),
    "threshold": (find_bound, threshold_count),
}


@torch.inference_mode()
def calibrate(run: Run[CalibrationSpec]) -> None:
    """Calibrate a rule on validation prompts, stage by stage on the survivors of the earlier stages.

    Raises:
        UserError: an input is missing, corrupt or made for another spec, the model lacks a layer, or prompts
            are longer than the model's positions.
    """
    spec = run.spec
    device = configure(spec.compute)
    tokenizer = load_tokenizer(run.job.path("model"))
    prompts = windows(read_corpus(run.job.path("text")), tokenizer, "validation", spec.documents, spec.tokens)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    lm.require_positions(spec.tokens, "evaluation.prompt_tokens")
    pruner, _, _ = open_pruner(run.job.path("pruner"), spec.layers, device)
    scorer = pruner.of_prompt(spec.tokens)
    pack_linears(lm)
    find, count_of = RULES[spec.selection]
    pruning = Pruning(spec.layers, spec.keep_ratios, spec.preserve)
    counts, protected = pruning.counts(spec.tokens), spec.preserve.of(spec.tokens)
    livings = [embed_prompt(lm, pruning, prompt.ids.to(device)) for prompt in prompts]
    values, means = [], []
    start = 0
    with tqdm(total=len(livings) * len(spec.layers), desc="calibrate", mininterval=2) as bar:
        for stage, layer in enumerate(spec.layers):
            scores = []
            for living in livings:
                for index in range(start, layer):
                    living.layer(index, None)
                scores.append(scorer(stage, *living.candidates()))
                bar.update()
            start = layer
            values.append(find(scores, counts[stage], protected))
            kept = [count_of(row, values[-1], protected) for row in scores]
            means.append(fmean(kept))
            for living, row, count in zip(livings, scores, kept, strict=True):
                living.keep(select(row, count, protected))
    calibration = Calibration(values=tuple(values), counts=counts, mean_kept=tuple(means))
    with new_artefact(run, {"prompts": len(prompts), "mean_kept": means}) as folder:
        write_text(folder / CALIBRATION_FILE, calibration.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.sdtp.calibrate", CalibrationSpec, calibrate, __doc__)
