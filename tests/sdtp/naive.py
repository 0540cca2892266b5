"""An independent pruned forward: full-size states, explicit masks and positions, float64.

Written from the definitions, in loops. It shares only the model's layers with the code under test, and passes
explicit masks and rotations to each layer. It needs no cache: prompt and continuation run together.
"""

import copy
import math
from fractions import Fraction

import torch


def naive_logits(
    lm,
    scores,
    prompt,
    continuation,
    layers,
    ratios,
    head,
    tail,
    positions="original",
    propagation="cascade",
    temperature=None,
):
    """Float64 logits ``[1 + len(continuation), vocabulary]`` and the sets of tokens alive at each layer.

    The first row is that of the last surviving prompt token, the others are the continuation's.
    `scores(stage, states)` gets the float64 states of the candidates: the living prompt tokens, or all of
    them for `local` propagation. With a `temperature` nothing is dropped, and attention is weighted instead.
    """
    assert not (propagation == "stale_keys" and positions == "packed"), "renumbering needs removal"
    model = copy.deepcopy(lm.model).double()
    backbone = model.gpt_neox if lm.config.model_type == "gpt_neox" else model.model
    embedding = backbone.embed_in if lm.config.model_type == "gpt_neox" else backbone.embed_tokens
    norm = backbone.final_layer_norm if lm.config.model_type == "gpt_neox" else backbone.norm
    n = len(prompt)
    total = n + len(continuation)
    hidden = embedding(torch.cat([prompt, continuation]))[None]
    alive = list(range(n))
    weight = [1.0] * n
    counts = [n]
    for ratio in ratios:
        counts.append(max(min(n, head + tail), math.ceil(Fraction(str(ratio)) * counts[-1])))
    alive_at = []
    for index, layer in enumerate(backbone.layers):
        if index in layers:
            stage = layers.index(index)
            everybody = propagation == "local" or temperature is not None
            candidates = list(range(n)) if everybody else alive
            values = dict(
                zip(candidates, scores(stage, hidden[0, candidates]).detach().tolist(), strict=True)
            )
            pool = candidates if propagation == "local" else alive
            protected = [i for i in pool if i < head or i >= n - tail]
            others = sorted((i for i in pool if i not in protected), key=lambda i: (-values[i], i))
            keep = counts[stage + 1] - len(protected)
            if temperature is not None:
                threshold = (values[others[keep - 1]] + values[others[keep]]) / 2
                for i in set(range(n)) - set(protected):
                    weight[i] /= 1 + math.exp(min(700.0, -(values[i] - threshold) / temperature))
            alive = sorted(protected + others[:keep])
        visible = alive if propagation != "stale_keys" and temperature is None else list(range(n))
        alive_at.append(list(visible) if temperature is not None else list(alive))
        # A token that is not visible needs no position, since its state is not read again.
        place = [0] * n
        for rank, i in enumerate(visible):
            place[i] = rank if positions == "packed" else i
        # In each layer the continuation follows the layer's own prompt.
        end = len(visible) if positions == "packed" else n
        place += [end + j for j in range(len(continuation))]
        mask = torch.full((total, total), -1e30, dtype=torch.float64)
        for i in range(total):
            mask[i, i] = 0.0
            for j in range(i):
                if j >= n:
                    mask[i, j] = 0.0
                elif j in visible:
                    mask[i, j] = math.log(max(weight[j], 1e-300))
        angles = torch.tensor(place).double()[:, None] * backbone.rotary_emb.inv_freq.double()
        angles = torch.cat([angles, angles], dim=-1)[None]
        rotary = angles.cos(), angles.sin()
        out = layer(hidden, attention_mask=mask[None, None], position_embeddings=rotary)
        out = out[0] if isinstance(out, tuple) else out
        moving = (list(range(n)) if temperature is not None else alive) + list(range(n, total))
        # States of dropped tokens stay unchanged.
        hidden = hidden.index_copy(1, torch.tensor(moving), out[:, moving])
    rows = [n - 1 if temperature is not None else alive[-1], *range(n, total)]
    return model.get_output_embeddings()(norm(hidden))[0, rows].detach(), alive_at


def naive_greedy(lm, scores, prompt, tokens, *arguments, **keywords):
    """Greedy tokens after a pruned prompt, each from a forward over everything before it (as `naive_logits`).

    Also returns the smallest gap between the two highest logits, which shows ties at float32's resolution.
    """
    decoded, gap = prompt[:0], float("inf")
    for _ in range(tokens):
        logits, _ = naive_logits(lm, scores, prompt, decoded, *arguments, **keywords)
        best = logits[-1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        decoded = torch.cat([decoded, best.indices[:1]])
    return decoded.tolist(), gap
