"""What the decoding jobs need; what drafts will bring is assumed."""

from dataclasses import replace
from typing import cast

from ablations.study.contracts.benchmark import BenchmarkSpec, TransformersAssisted
from ablations.study.contracts.dynatree import (
    ArmSpec,
    CostSpec,
    DecodeSpec,
    DistilSpec,
    DynamicTree,
    Prompted,
    TeacherSpec,
    row_counts,
    tree_nodes,
)
from ablations.study.contracts.grid import GridSpec
from ablations.study.contracts.lm import Compute, Dtype
from ablations.study.estimate.demand import Demand, Inputs, Shapes, demand, loaded, resident
from ablations.study.estimate.shapes import ModelShape
from ablations.study.estimate.work import Work, activation_bytes, dense, kv_bytes, step, weight_bytes

ACCEPTANCE = 2.5
"""Tokens per target forward of a drafting arm, assumed before it was measured."""

PRUNED_NODES = 24
"""Nodes of a tree pruned by path probability, on average, assumed likewise."""

TYPICAL_PROMPT = 256
"""Tokens of a prompt that is taken whole."""


@demand.register
def _(spec: TeacherSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    sequences = spec.texts + spec.questions
    tokens = spec.prompt_tokens + spec.new_tokens
    batches = -(-sequences // spec.batch)
    work = step(model, dtype, tokens * spec.batch / 2, spec.batch) * (spec.new_tokens * batches)
    return Demand(loaded(model, dtype) + work, resident(model, dtype, tokens * spec.batch, spec.batch))


@demand.register
def _(spec: DistilSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, teacher = shapes["model"], cast(TeacherSpec, inputs["teacher"])
    tokens = teacher.prompt_tokens + teacher.new_tokens
    draft = model.matrices / model.layers + spec.vocabulary * model.hidden
    sequences = (teacher.texts + teacher.questions) * spec.epochs
    work = Work(flops=6 * draft * tokens * spec.unroll * sequences)
    held = 16 * draft + spec.batch * tokens * spec.vocabulary * 8
    return Demand(loaded(model, spec.compute.dtype) + work, weight_bytes(model, "float32") + held)


@demand.register
def _(spec: DecodeSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    pairs = spec.discarded + spec.repeats
    work = Work()
    for tokens, count in _prompts(spec):
        arm = _arm(spec, shapes, spec.compute.dtype, tokens, spec.new_tokens)
        reference = _autoregressive(shapes["model"], spec.compute.dtype, tokens, spec.new_tokens)
        if spec.reference == "generate":
            # The library launches every layer.
            reference = replace(reference, layers=reference.layers + reference.replayed, replayed=0.0)
        work += (arm + reference) * (count * pairs)
        if not spec.discarded and spec.drafter is not None:
            work += arm * (count * spec.warmup)
    return Demand(
        _all_loaded(shapes, spec.compute) + work, _decoding_memory(spec, shapes, spec.compute, [spec])
    )


@demand.register
def _(spec: BenchmarkSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    dtype, work = spec.compute.dtype, Work()
    library = sum(
        spec.assistant is not None or not isinstance(settings, TransformersAssisted)
        for settings in spec.transformers.values()
    )
    for tokens, count in _prompts(spec):
        plain = _autoregressive(shapes["model"], dtype, tokens, spec.new_tokens)
        for arm in spec.arms.values():
            # What takes a token at a time is warmed up by a few.
            passes = spec.repeats + (spec.warmup if arm.drafter is not None else 0)
            runs = min(count, arm.prompts or count) * passes
            own = {role: shapes[name] for role, name in arm.inputs.items() if name in shapes}
            work += _arm(arm, {**shapes, **own}, dtype, tokens, spec.new_tokens) * runs
        work += plain * (library * count * (spec.repeats + spec.warmup))
    memory = _decoding_memory(spec, shapes, spec.compute, list(spec.arms.values()))
    return Demand(_all_loaded(shapes, spec.compute) + work, memory)


@demand.register
def _(spec: CostSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    sizes = row_counts(spec.max_nodes + 1)
    work = Work()
    for rows in sizes:
        work += step(model, dtype, spec.prefix, rows) * (spec.repeats + 1)
    for tokens, count in _prompts(spec):
        work += _autoregressive(model, dtype, tokens, spec.new_tokens) * count
    return Demand(_all_loaded(shapes, spec.compute) + work, _replay_memory(spec, shapes, spec.max_nodes))


@demand.register
def _(spec: GridSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    work = Work()
    for tokens, count in _prompts(spec):
        work += _autoregressive(model, dtype, tokens, spec.new_tokens) * count
        # A replay drafts as decoding does; what the target says is known.
        rounds = sum(spec.lengths) / ACCEPTANCE * count
        work += Work(layers=rounds * sum(tree.shape.depth for tree in spec.trees))
    nodes = max(tree.pruning.max_nodes for tree in spec.trees)
    return Demand(_all_loaded(shapes, spec.compute) + work, _replay_memory(spec, shapes, nodes))


def _arm(spec: ArmSpec, shapes: Shapes, dtype: Dtype, prompt: int, new: int) -> Work:
    """One generation by a decoding arm."""
    model = shapes["model"]
    if spec.drafter is None or spec.shape is None or spec.pruning is None:
        return _autoregressive(model, dtype, prompt, new)
    adapted = spec.adaptation
    depth = adapted.max_depth if isinstance(adapted, DynamicTree) else spec.shape.depth
    nodes = tree_nodes(depth, spec.shape.branching, spec.pruning.max_nodes)
    if spec.pruning.tau is not None or adapted is not None:
        nodes = min(nodes, PRUNED_NODES)
    context, rounds = prompt + new / 2, new / ACCEPTANCE
    drawn = step(model, dtype, context, 1 + nodes)
    if spec.drafter.kind == "neural":
        drawn += step(shapes["draft"], dtype, context) * depth
    return dense(model, prompt) + drawn * rounds


def _autoregressive(model: ModelShape, dtype: Dtype, prompt: int, new: int) -> Work:
    return dense(model, prompt) + step(model, dtype, prompt + new / 2) * new


def _prompts(spec: Prompted) -> list[tuple[int, int]]:
    """Tokens and count of each kind of prompts."""
    return [(chosen.tokens or TYPICAL_PROMPT, chosen.count) for chosen in spec.prompts]


def _all_loaded(shapes: Shapes, compute: Compute) -> Work:
    return Work(loaded=sum(weight_bytes(shape, compute.dtype) for shape in shapes.values()))


def _decoding_memory(spec: Prompted, shapes: Shapes, compute: Compute, arms: list[ArmSpec]) -> float:
    dtype = compute.dtype
    tokens = max(prompt for prompt, _ in _prompts(spec)) + spec.new_tokens
    held = float(sum(weight_bytes(shape, dtype) for shape in shapes.values()))
    for arm in arms:
        nodes = arm.pruning.max_nodes if arm.pruning is not None else 0
        held += sum(kv_bytes(shape, dtype, tokens + nodes) for shape in shapes.values())
    # The reference's cache, and logits of a whole tree.
    model = shapes["model"]
    held += kv_bytes(model, dtype, tokens)
    return held + activation_bytes(model, dtype, tokens, head_rows=257)


def _replay_memory(spec: CostSpec | GridSpec, shapes: Shapes, nodes: int) -> float:
    tokens = max(prompt for prompt, _ in _prompts(spec)) + spec.new_tokens + nodes
    held = [resident(shape, spec.compute.dtype, tokens, nodes) for shape in shapes.values()]
    return sum(held)
