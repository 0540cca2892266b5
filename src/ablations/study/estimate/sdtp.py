"""What the SDTP jobs need."""

from typing import cast

from ablations.study.contracts.sdtp import (
    CalibrationSpec,
    EvaluateSpec,
    PrunerSpec,
    ReferenceSpec,
    SaliencySpec,
    SweepSpec,
)
from ablations.study.estimate.demand import Demand, Inputs, Shapes, demand, loaded, resident
from ablations.study.estimate.shapes import ModelShape
from ablations.study.estimate.work import (
    Work,
    dense,
    forward,
    gradient_bytes,
    kv_bytes,
    living_rows,
    step,
    weight_bytes,
)

ANSWER_TOKENS = 8
"""Tokens decoded after a passkey prompt."""


@demand.register
def _(spec: SaliencySpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype, first = shapes["model"], spec.compute.dtype, spec.layers[0]
    loss_tokens = spec.continuation_tokens if spec.target.loss == "continuation" else spec.tokens
    # A backward through frozen weights costs about a forward.
    window = dense(model, spec.tokens, loss_tokens) + dense(model, spec.tokens, loss_tokens, first)
    held = gradient_bytes(model, dtype, spec.tokens, first, masked=False, loss_tokens=loss_tokens)
    windows = spec.documents + spec.heldout_documents
    return Demand(loaded(model, dtype) + window * windows, weight_bytes(model, dtype) + held)


@demand.register
def _(spec: PrunerSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    table = cast(SaliencySpec, inputs["saliency"])
    first, last = spec.layers[0], spec.layers[-1]
    tokens, continuation = table.tokens, table.continuation_tokens
    up_to_last = forward(model, [tokens] * last, 0)
    masked = dense(model, tokens, continuation) + dense(model, tokens, continuation, first)
    work = up_to_last * (2 * table.heldout_documents)
    if spec.warmup_epochs and (spec.losses.mse or spec.losses.ranking):
        work += up_to_last * table.documents
    work += (masked if spec.losses.lm else up_to_last) * (spec.epochs * table.documents)
    held = gradient_bytes(model, dtype, tokens, first, masked=True, loss_tokens=continuation) * spec.batch
    held = held if spec.losses.lm else 0.0
    return Demand(loaded(model, dtype) + work, weight_bytes(model, dtype) + held)


@demand.register
def _(spec: ReferenceSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype, windows = shapes["model"], spec.compute.dtype, spec.windows
    tokens = windows.prompt_tokens + windows.continuation_tokens
    work = dense(model, tokens, windows.continuation_tokens) * windows.documents
    if spec.retrieval is not None:
        asked = spec.retrieval.tokens
        probe = dense(model, asked) + step(model, dtype, asked) * ANSWER_TOKENS
        work += probe * (len(spec.retrieval.depths) * spec.retrieval.keys)
    longest = max(tokens, spec.retrieval.tokens if spec.retrieval else 0)
    return Demand(loaded(model, dtype) + work, resident(model, dtype, longest, windows.continuation_tokens))


@demand.register
def _(spec: CalibrationSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    rows = living_rows(spec.tokens, spec.layers, spec.keep_ratios, spec.preserve, spec.layers[-1])
    held = kv_bytes(model, dtype, spec.tokens) * spec.documents
    work = forward(model, rows, 0) * spec.documents
    return Demand(loaded(model, dtype) + work, weight_bytes(model, dtype) + held)


@demand.register
def _(spec: EvaluateSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype, windows = shapes["model"], spec.compute.dtype, spec.windows
    tokens, continuation = windows.prompt_tokens, windows.continuation_tokens
    pairs = 0
    if spec.timing:
        warmed = 1 if spec.selection == "top_k" else spec.timing.documents
        pairs = spec.timing.documents * spec.timing.repeats + warmed * spec.timing.warmup
    untimed = windows.documents - spec.timing.documents if spec.timing else windows.documents
    work = _pruned(spec, model, tokens) * (pairs + untimed) + dense(model, tokens) * pairs
    work += dense(model, continuation, continuation) * windows.documents
    longest = tokens + continuation
    if spec.retrieval is not None:
        asked = spec.retrieval.tokens
        prompts = len(spec.retrieval.depths) * spec.retrieval.keys
        work += (_pruned(spec, model, asked) + step(model, dtype, asked) * ANSWER_TOKENS) * prompts
        longest = max(longest, asked)
    memory = resident(model, dtype, longest, continuation) + kv_bytes(model, dtype, tokens)
    if spec.importance == "saliency":
        rows = spec.saliency.loss_tokens or longest
        memory += gradient_bytes(model, dtype, longest, spec.layers[0], masked=False, loss_tokens=rows)
    if spec.mask == "soft":
        memory += 4.0 * longest**2
    return Demand(loaded(model, dtype) + work, memory)


@demand.register
def _(spec: SweepSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype, tokens = shapes["model"], spec.compute.dtype, spec.tokens
    pairs = spec.warmup + spec.repeats
    work = dense(model, tokens) * (2 * pairs)
    decoded = step(model, dtype, tokens) * spec.new_tokens
    for ratio in spec.keep_ratios:
        rows = living_rows(tokens, spec.layers, [ratio] * len(spec.layers), spec.preserve, model.layers)
        pruned = forward(model, rows, 1)
        work += (
            (pruned + dense(model, tokens)) * (2 * pairs + 1) + pruned * spec.repeats + decoded * (2 * pairs)
        )
    # Beside the static cache stands that of the library.
    library = kv_bytes(model, dtype, tokens)
    return Demand(loaded(model, dtype) + work, resident(model, dtype, tokens + spec.new_tokens, 1) + library)


def _pruned(spec: EvaluateSpec, model: ModelShape, tokens: int) -> Work:
    """A pruned prefill, scores included where they cost a pass of their own."""
    everything = spec.mask == "soft"
    rows = (
        [tokens] * model.layers
        if everything
        else living_rows(tokens, spec.layers, spec.keep_ratios, spec.preserve, model.layers)
    )
    scored = Work()
    if spec.importance == "saliency":
        head_rows = spec.saliency.loss_tokens or tokens
        scored = dense(model, tokens, head_rows) + dense(model, tokens, head_rows, spec.layers[0])
    return forward(model, rows, 1) + scored
