"""Job: what drafting and verifying cost here, and how stated probabilities turn out, for cost-aware trees."""

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from tqdm import tqdm

from ablations.dynatree.arm import COSTS_FILE, build_drafter, most_nodes
from ablations.dynatree.cost_fits import acceptance_curve, draft_costs
from ablations.dynatree.decoding import Draft, decode_autoregressive
from ablations.dynatree.growth.cost_aware import CostAwareGrowth, CostModel
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.pricing import MeteredDrafter, price
from ablations.dynatree.prompts import read_prompts
from ablations.dynatree.replay import Round, replay, states_of_text
from ablations.dynatree.tree import TokenTree
from ablations.dynatree.verify import tree_mask
from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.lm.finite import NOT_FINITE, greedy_ids, require_finite
from ablations.lm.fused import fastest
from ablations.lm.graphs import cache_for, last_states
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import device_lock, stopwatch
from ablations.study.artefact import new_artefact
from ablations.study.contracts.dynatree import Costs, CostSpec, row_counts
from ablations.study.errors import UserError
from ablations.study.files import write_text
from ablations.study.job import Run, main

# Nodes of a smaller path probability would not be drafted at any cost seen so far.
LEAST_STATED = 1e-3
RATE_ROUNDS = 12
RATE_TOLERANCE = 1e-3

Known = list[tuple[list[int], list[int], Tensor]]


def measure_verify(target: LayeredLM, ids: Tensor, counts: list[int], repeats: int) -> list[float]:
    """Least seconds of a target forward by number of rows, the sizes interleaved.

    The fastest of the repeats counts: whatever else the machine does can only add to it.

    Args:
        target: The model.
        ids: ``[prefix]`` int64, what the cache holds.
        counts: Numbers of rows.
        repeats: Timed forwards of each size, after an untimed one.

    Raises:
        UserError: logits are NaN or infinite.

    Returns:
        Seconds for each of `counts`, made non-decreasing (isotonic regression).
    """
    prefix, most = len(ids), counts[-1]
    cache = cache_for(target, prefix + most, most)
    positions = torch.arange(prefix + most, device=ids.device)[None]
    last_states(target, ids[None], positions[:, :prefix], None, cache)
    causal = torch.ones(most, most, dtype=torch.bool, device=ids.device).tril()

    def verify(rows: int) -> Tensor:
        mask = tree_mask(causal[:rows, :rows], prefix, target.dtype) if rows > 1 else None
        ids_of_rows = ids[None, torch.arange(rows, device=ids.device) % prefix]
        states = last_states(target, ids_of_rows, positions[:, prefix : prefix + rows], mask, cache)
        return greedy_ids(target.head(states))[0]

    seconds: dict[int, list[float]] = {rows: [] for rows in counts}
    for repeat in tqdm(range(repeats + 1), desc="verify costs", mininterval=2):
        for rows in counts:
            decided, elapsed = stopwatch(target.device, lambda size=rows: verify(size))  # type: ignore[misc]
            finite = bool((decided != NOT_FINITE).all())
            require_finite(finite, f"the target's logits of {rows} rows", target.dtype)
            cache.truncate(prefix)
            if repeat:
                seconds[rows].append(elapsed)
    return isotonic_regression([min(seconds[rows]) for rows in counts]).x.tolist()


def best_rate(costs: Costs, drafter: MeteredDrafter, branching: int, depth: int, known: Known) -> float:
    """Tokens per second of cost-aware trees on known continuations, by replay with calibrated costs.

    The rate prices time in the choice of nodes, and the choice yields a rate: Dinkelbach's iteration
    from the autoregressive rate on, which keeps the best rate found.
    """
    device = drafter.device
    nodes = costs.rows[-1] - 1
    rate = costs.rate
    for _ in tqdm(range(RATE_ROUNDS), desc="rate", mininterval=2):
        model = CostModel(costs.model_copy(update={"rate": rate}), nodes, device)
        growth = CostAwareGrowth(model, depth, branching, None)
        drafter.levels.clear()
        rounds = _replay_all(Draft(drafter, TokenTree(nodes, device), growth), known)
        seconds = price(costs, [found.size for found in rounds], drafter.levels)
        found_rate = sum(found.accepted + 1 for found in rounds) / seconds
        if found_rate <= rate * (1 + RATE_TOLERANCE):
            return max(rate, found_rate)
        rate = found_rate
    return rate


def _replay_all(draft: Draft, known: Known) -> list[Round]:
    return [found for text in known for found in replay(draft, *text)]


@torch.inference_mode()
def run(run: Run[CostSpec]) -> None:
    """Measure costs, replay drafting on the validation prompts, fit, and write the artefact.

    Raises:
        UserError: bad input, or prompts on which nothing is drafted.
    """
    spec = run.spec
    device = configure(spec.compute)
    target, layout = fastest(load_model(run.job.path("model"), spec.compute, device))
    prompts = read_prompts(run.job, target)
    capacity = max(len(window.ids) for window in prompts) + spec.new_tokens
    nodes = most_nodes(spec.shape, None, spec.max_nodes)
    drafter = MeteredDrafter(
        build_drafter(
            spec.drafter, run.job.path, spec.compute, target, capacity, nodes, spec.shape.branching
        ),
        target,
    )
    counts = row_counts(nodes + 1)
    text = torch.cat([window.ids for window in prompts]).to(device)
    if len(text) < spec.prefix:
        raise UserError(
            f"dynatree.calibration.prefix: {spec.prefix} tokens, but the prompts hold {len(text)}; lower it"
        )
    with device_lock(device):
        verify = measure_verify(target, text[: spec.prefix], counts, spec.repeats)
        cache = cache_for(target, capacity, 1)
        known: Known = []
        for window in tqdm(prompts, desc="greedy tokens", mininterval=2):
            prompt = window.ids.tolist()
            greedy = decode_autoregressive(target, cache, prompt, spec.new_tokens).tokens
            known.append((prompt, greedy, states_of_text(target, prompt, greedy)))
        wide = Draft(
            drafter,
            TokenTree(nodes, device),
            FixedGrowth(spec.shape.depth, spec.shape.branching, LEAST_STATED),
        )
        # The first calls cost more than those that follow.
        _replay_all(wide, known[:1])
        drafter.levels.clear()
        rounds = _replay_all(wide, known)
    if not sum(len(found.stated) for found in rounds):
        raise UserError("dynatree.calibration.prompts: nothing was drafted on them; use more or longer ones")
    level, row = draft_costs(drafter.levels)
    stated, accepted = acceptance_curve(
        torch.cat([found.stated for found in rounds]).cpu().numpy(),
        torch.cat([found.right for found in rounds]).cpu().numpy(),
    )
    costs = Costs(
        rows=tuple(counts),
        verify=tuple(verify),
        draft_level=level,
        draft_row=row,
        stated=tuple(stated),
        accepted=tuple(accepted),
        child=sum(found.accepted for found in rounds) / sum(found.tested for found in rounds),
        rate=1 / verify[0],
    )
    rate = best_rate(costs, drafter, spec.shape.branching, spec.shape.depth, known)
    costs = costs.model_copy(update={"rate": rate})
    facts = {
        "weight_layout": layout,
        "rounds": len(rounds),
        "nodes": sum(len(found.stated) for found in rounds),
        "autoregressive_rate": 1 / verify[0],
        "rate": rate,
    }
    with new_artefact(run, facts) as folder:
        write_text(folder / COSTS_FILE, costs.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.dynatree.calibrate_costs", CostSpec, run, "Measure what drafting and verifying cost.")
