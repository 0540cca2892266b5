"""An independent pruned forward: full-size states, explicit boolean masks and positions, float64.

Written from the definitions in loops; shares nothing with the code under test but the model's layers,
which get every mask spelled out. Needs no cache: prompt and continuation go through together.
"""

import copy
import math
from fractions import Fraction

import torch


def naive_logits(lm, scores, prompt, continuation, layers, ratios, head, tail, positions="original"):
    """Float64 logits ``[1 + len(continuation), vocabulary]`` and the sets of tokens alive at each layer.

    The first row is that of the last surviving prompt token, the others are the continuation's.
    `scores(stage, states)` gets the float64 states of the living prompt tokens.
    """
    model = copy.deepcopy(lm.model).double()
    backbone = model.gpt_neox if lm.config.model_type == "gpt_neox" else model.model
    embedding = backbone.embed_in if lm.config.model_type == "gpt_neox" else backbone.embed_tokens
    norm = backbone.final_layer_norm if lm.config.model_type == "gpt_neox" else backbone.norm
    n = len(prompt)
    total = n + len(continuation)
    hidden = embedding(torch.cat([prompt, continuation]))[None]
    alive = list(range(n))
    # With packed positions the continuation's own depend on the last stage, so counts come first.
    living = n
    for ratio in ratios:
        living = max(min(n, head + tail), math.ceil(Fraction(str(ratio)) * living))
    next_position = living if positions == "packed" and layers else n
    alive_at = []
    for index, layer in enumerate(backbone.layers):
        if index in layers:
            stage = layers.index(index)
            values = scores(stage, hidden[0, alive]).detach()
            keep = max(min(n, head + tail), math.ceil(Fraction(str(ratios[stage])) * len(alive)))
            protected = [i for i in alive if i < head or i >= n - tail]
            others = [(-float(values[k]), i) for k, i in enumerate(alive) if i not in protected]
            alive = sorted(protected + [i for _, i in sorted(others)[: keep - len(protected)]])
        alive_at.append(list(alive))
        place = torch.zeros(total, dtype=torch.int64)
        for rank, i in enumerate(alive):
            place[i] = rank if positions == "packed" and index >= min(layers, default=0) else i
        for j in range(len(continuation)):
            place[n + j] = next_position + j
        mask = torch.zeros(total, total, dtype=torch.bool)
        for i in range(total):
            mask[i, i] = True
            for j in range(i):
                mask[i, j] = j >= n or j in alive
        rotary = backbone.rotary_emb(hidden, position_ids=place[None])
        rotary = tuple(part.double() for part in rotary)
        out = layer(hidden, attention_mask=mask[None, None], position_embeddings=rotary)
        hidden = out[0] if isinstance(out, tuple) else out
    rows = [alive[-1], *range(n, total)]
    return model.get_output_embeddings()(norm(hidden))[0, rows].detach(), alive_at
