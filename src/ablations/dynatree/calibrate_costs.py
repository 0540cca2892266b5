"""Job: costs of drafting and verifying, and acceptance by stated probability, for cost-aware trees."""

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.core.job import Run, main
from ablations.dynatree.cost_fits import acceptance_curve, draft_costs
from ablations.dynatree.decoding import Draft, decode_autoregressive
from ablations.dynatree.drafters.build import build_drafter
from ablations.dynatree.growth.cost_aware import CostAwareGrowth, CostModel
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.pricing import COSTS_FILE, MeteredDrafter, price
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
from ablations.specs.dynatree.arm import tree_nodes
from ablations.specs.dynatree.calibrate_costs import CostSpec, row_counts
from ablations.specs.dynatree.costs import Costs

# A cost-aware tree drafted no node of a smaller path probability at any costs measured so far.
MIN_PATH_PROBABILITY = 1e-3
RATE_ROUNDS = 12
RATE_TOLERANCE = 1e-3

GreedyText = tuple[list[int], list[int], Tensor]
"""A prompt, the target's greedy continuation, and its states of both."""


def measure_verify(target: LayeredLM, ids: Tensor, counts: list[int], repeats: int) -> list[float]:
    """Seconds of a target forward by number of rows; forwards of all numbers of rows are interleaved.

    The fastest repeat counts, since other load on the machine can only add time.

    Args:
        target: The model.
        ids: ``[prefix]`` int64, text in the cache.
        counts: Ascending numbers of rows.
        repeats: Timed forwards for each number of rows, after an untimed one.

    Returns:
        Seconds for each of `counts`, made non-decreasing (isotonic regression).

    Raises:
        UserError: logits are NaN or infinite.
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
            greedy, elapsed = stopwatch(target.device, lambda size=rows: verify(size))  # type: ignore[misc]
            finite = bool((greedy != NOT_FINITE).all())
            require_finite(finite, f"the target's logits of {rows} rows", target.dtype)
            cache.truncate(prefix)
            if repeat:
                seconds[rows].append(elapsed)
    return isotonic_regression([min(seconds[rows]) for rows in counts]).x.tolist()


def best_rate(
    costs: Costs, drafter: MeteredDrafter, branching: int, depth: int, texts: list[GreedyText]
) -> float:
    """Tokens per second of cost-aware trees on known continuations, by replay with calibrated costs.

    The rate is the price of time in the choice of nodes, and the chosen nodes give a new rate. Dinkelbach's
    iteration starts from the autoregressive rate and keeps the best rate.
    """
    device = drafter.device
    nodes = costs.rows[-1] - 1
    rate = costs.rate
    for _ in tqdm(range(RATE_ROUNDS), desc="rate", mininterval=2):
        model = CostModel(costs.model_copy(update={"rate": rate}), nodes, device)
        growth = CostAwareGrowth(model, depth, branching, None)
        drafter.levels.clear()
        rounds = _replay_all(Draft(drafter, TokenTree(nodes, device), growth), texts)
        seconds = price(costs, [one_round.size for one_round in rounds], drafter.levels)
        new_rate = sum(one_round.accepted + 1 for one_round in rounds) / seconds
        if new_rate <= rate * (1 + RATE_TOLERANCE):
            return max(rate, new_rate)
        rate = new_rate
    return rate


def _replay_all(draft: Draft, texts: list[GreedyText]) -> list[Round]:
    return [one_round for text in texts for one_round in replay(draft, *text)]


@torch.inference_mode()
def run(run: Run[CostSpec]) -> None:
    """Measure costs, replay drafting on the validation prompts, fit the curves, and write the artefact.

    Raises:
        UserError: an input is invalid, or nothing is drafted on the prompts.
    """
    spec = run.spec
    device = configure(spec.compute)
    target, layout = fastest(load_model(run.job.path("model"), spec.compute, device))
    prompts = read_prompts(run.job, target)
    capacity = max(len(window.ids) for window in prompts) + spec.new_tokens
    nodes = tree_nodes(spec.shape.depth, spec.shape.branching, spec.max_nodes)
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
        texts: list[GreedyText] = []
        for window in tqdm(prompts, desc="greedy tokens", mininterval=2):
            prompt = window.ids.tolist()
            greedy = decode_autoregressive(target, cache, prompt, spec.new_tokens).tokens
            texts.append((prompt, greedy, states_of_text(target, prompt, greedy)))
        draft = Draft(
            drafter,
            TokenTree(nodes, device),
            FixedGrowth(spec.shape.depth, spec.shape.branching, MIN_PATH_PROBABILITY),
        )
        # The first calls are slower than later ones.
        _replay_all(draft, texts[:1])
        drafter.levels.clear()
        rounds = _replay_all(draft, texts)
    nodes_verified = sum(len(one_round.stated) for one_round in rounds)
    if not nodes_verified:
        raise UserError("dynatree.calibration.prompts: nothing was drafted on them; use more or longer ones")
    level, row = draft_costs(drafter.levels)
    stated, accepted = acceptance_curve(
        torch.cat([one_round.stated for one_round in rounds]).cpu().numpy(),
        torch.cat([one_round.is_accepted for one_round in rounds]).cpu().numpy(),
    )
    costs = Costs(
        rows=tuple(counts),
        verify=tuple(verify),
        draft_level=level,
        draft_row=row,
        stated=tuple(stated),
        accepted=tuple(accepted),
        child=sum(one_round.accepted for one_round in rounds) / sum(one_round.tested for one_round in rounds),
        rate=1 / verify[0],
    )
    rate = best_rate(costs, drafter, spec.shape.branching, spec.shape.depth, texts)
    costs = costs.model_copy(update={"rate": rate})
    facts = {
        "weight_layout": layout,
        "rounds": len(rounds),
        "nodes": nodes_verified,
        "autoregressive_rate": 1 / verify[0],
        "rate": rate,
    }
    with new_artefact(run, facts) as folder:
        write_text(folder / COSTS_FILE, costs.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main("ablations.dynatree.calibrate_costs", CostSpec, run, "Measure what drafting and verifying cost.")
