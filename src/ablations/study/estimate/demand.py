"""Demand of jobs and of panels: work and memory, from the specs of jobs and the shapes of their models."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, cast

from ablations.core.block import Span
from ablations.core.contract import Contract
from ablations.specs.dynatree.arm import ArmSpec, DynamicTree, TreePruning, tree_nodes
from ablations.specs.dynatree.benchmark import BenchmarkSpec, TransformersAssisted
from ablations.specs.dynatree.calibrate_costs import CostSpec
from ablations.specs.dynatree.calibrate_drafter import AcceptanceSpec
from ablations.specs.dynatree.calibrate_target import TargetCostSpec, prompt_lengths, row_counts, timings
from ablations.specs.dynatree.decode import DecodeSeries
from ablations.specs.dynatree.distil import DistilSpec
from ablations.specs.dynatree.distil_teacher import TeacherSpec
from ablations.specs.dynatree.fit_ngram import NgramSpec
from ablations.specs.dynatree.grid import GridSpec
from ablations.specs.dynatree.prompts import Prompted
from ablations.specs.dynatree.replay import ReplaySeries
from ablations.specs.lm import Compute, Dtype, PrepareModelSpec, PrepareTextSpec
from ablations.specs.sdtp.calibrate import CalibrationSpec
from ablations.specs.sdtp.counts import stage_counts
from ablations.specs.sdtp.evaluate import (
    ATTENTION_WINDOW,
    PrefillSeries,
    PrunedSeries,
    RetrievalSeries,
    TextSeries,
)
from ablations.specs.sdtp.saliency import SaliencySpec
from ablations.specs.sdtp.sweep import SweepSpec
from ablations.specs.sdtp.train import PrunerSpec
from ablations.study.estimate.shapes import ModelShape, shape_of_job
from ablations.study.estimate.work import (
    Work,
    activation_bytes,
    dense,
    forward,
    gradient_bytes,
    kv_bytes,
    living_rows,
    step,
    weight_bytes,
)
from ablations.study.planning.jobs import Job
from ablations.study.planning.panels import PlannedPanel
from ablations.study.planning.stages import JOIN

Shapes = Mapping[str, ModelShape]
"""Shapes of a job's models: `model`, and `draft` where it has one."""

InputSpecs = Mapping[str, Any]
"""Specs of a job's input artefacts, by the name of the input."""

ANSWER_TOKENS = 8
"""Assumed tokens of the answer to a retrieval prompt."""

ACCEPTANCE = 2.5
"""Assumed tokens per target forward of a drafting arm."""

TRACED = 20
"""Prompts that are continued side by side for replays."""

PRUNED_NODES = 24
"""Assumed mean number of nodes of a tree pruned by path probability."""

TYPICAL_PROMPT = 256
"""Assumed tokens of a prompt that is taken whole."""


NOTHING = Work()
"""No work."""


@dataclass(frozen=True)
class Demand:
    """What a job needs.

    Attributes:
        work: What it computes, moves and launches; of a series, for one item, beside the checkpoints that it
            loads once.
        memory: Bytes that its device must hold at once.
        common: Work that a panel does once for all that lack it: of a series the unpruned or undrafted model
            on one item, of a training the states that it begins with.
        kept: Bytes of `memory` that a panel holds for this job while it works on others.
    """

    work: Work
    memory: float
    common: Work = NOTHING
    kept: float = 0.0


ONCE = (0,)
"""Items of a job that has none."""


def side_by_side(members: Iterable[tuple[Demand, Collection[int]]]) -> Demand:
    """Demand of one process that does several jobs: what is common is loaded and computed once.

    Args:
        members: Demand of each job, and the numbers of its items that are to be measured.
    """
    work, loaded, largest, kept = Work(), 0.0, 0.0, 0.0
    common: dict[Work, set[int]] = {}
    for member, items in members:
        work += replace(member.work, loaded=0.0) * len(items)
        loaded = max(loaded, member.work.loaded)
        common.setdefault(member.common, set()).update(items)
        largest = max(largest, member.memory - member.kept)
        kept += member.kept
    for each, items in common.items():
        work += each * len(items)
    return Demand(replace(work, loaded=loaded), largest + kept)


def total_demand(planned: Job | PlannedPanel, known: Mapping[str, Any]) -> Demand:
    """Demand of the process that does a planned job, or what the jobs of a panel lack.

    Args:
        planned: The job, of a series all its items; or the panel.
        known: Fields of ``config.json`` of checkpoints that are not prepared yet, by name.

    Raises:
        UserError: the size of a model is not known.
    """
    if isinstance(planned, Job):
        return side_by_side([(job_demand(planned, known), items_of(planned))])
    entries = zip(planned.jobs, planned.file.entries, strict=True)
    return side_by_side((job_demand(job, known), numbers(entry.spans)) for job, entry in entries)


def items_of(job: Job) -> Collection[int]:
    """Numbers of all items of a series; `ONCE` for another job."""
    return ONCE if job.count is None else range(job.count)


def numbers(spans: Iterable[Span]) -> Collection[int]:
    """Numbers of the items of an entry of a panel; `ONCE` where it has no spans."""
    return [number for first, end in spans for number in range(first, end)] or ONCE


def job_demand(job: Job, known: Mapping[str, Any]) -> Demand:
    """Demand of a planned job; of a series, of one item.

    Args:
        job: The job.
        known: Fields of ``config.json`` of checkpoints that are not prepared yet, by name.

    Raises:
        UserError: the size of a model is not known.
    """
    if job.stage is JOIN:
        return Demand(Work(), 0.0)
    shapes = dict(_shapes(job, known))
    return demand(job.spec, shapes, {name: artefact.spec for name, artefact in job.inputs.items()})


@singledispatch
def demand(spec: Contract, shapes: Shapes, inputs: InputSpecs) -> Demand:
    """Demand of a job; of a series, of one item.

    Args:
        spec: Spec of the job.
        shapes: Shapes of its models.
        inputs: Specs of its input artefacts.
    """
    raise NotImplementedError(type(spec).__name__)


@demand.register(PrepareTextSpec)
@demand.register(NgramSpec)
def _without_model(spec: Contract, shapes: Shapes, inputs: InputSpecs) -> Demand:
    return Demand(Work(), 0.0)


@demand.register
def _of_preparation(spec: PrepareModelSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    # The checkpoint is read, written and hashed, on the CPU and in its own data type.
    return Demand(Work(loaded=3 * weight_bytes(shapes["model"], "bfloat16")), 0.0)


@demand.register
def _of_saliency(spec: SaliencySpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, dtype, first = shapes["model"], spec.compute.dtype, spec.layers[0]
    work, held = _loaded(model, dtype), 0.0
    for following, count in (
        (spec.continuation_tokens, spec.documents + spec.heldout_documents),
        (ANSWER_TOKENS, _retrieval_windows(spec)),
    ):
        tokens = spec.tokens - spec.continuation_tokens + following
        loss_tokens = following if spec.target.loss == "continuation" else tokens
        work += _gradient(model, tokens, loss_tokens, first) * count
        memory = gradient_bytes(model, dtype, tokens, first, masked=False, loss_tokens=loss_tokens)
        held = max(held, memory if count else 0.0)
    return Demand(work, weight_bytes(model, dtype) + held)


@demand.register
def _of_training(spec: PrunerSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    saliency = cast(SaliencySpec, inputs["saliency"])
    first, last = spec.layers[0], spec.layers[-1]
    tokens, continuation = saliency.tokens, saliency.continuation_tokens
    windows = saliency.documents + _retrieval_windows(saliency)
    up_to_last = forward(model, [tokens] * last, 0)
    work = up_to_last * (2 * saliency.heldout_documents)
    warmed = spec.warmup_epochs > 0 and (spec.losses.mse or spec.losses.ranking)
    rows = _masked_rows(spec, model, tokens - continuation, continuation)
    # Through frozen weights a backward costs a forward; only the LM loss has one.
    masked = (
        forward(model, rows, continuation) * 2 if spec.losses.lm else forward(model, rows[: last - first], 0)
    )
    work += masked * (spec.epochs * windows)
    held = gradient_bytes(model, dtype, tokens, first, masked=True, loss_tokens=continuation) * spec.batch
    held = held if spec.losses.lm else 0.0
    return Demand(
        _loaded(model, dtype) + work,
        weight_bytes(model, dtype) + held,
        # The unpruned states, which all trainings of a panel are warmed up on.
        common=up_to_last * windows if warmed else NOTHING,
    )


def _masked_rows(spec: PrunerSpec, model: ModelShape, prompt: int, following: int) -> list[int]:
    """Rows of each layer from the first stage on; what a stage masks out leaves at the next one."""
    counts = (prompt, *stage_counts(prompt, spec.keep_ratios, spec.preserve.of(prompt).tokens)[:-1])
    ends = (*spec.layers[1:], model.layers)
    return [
        count + following
        for count, layer, end in zip(counts, spec.layers, ends, strict=True)
        for _ in range(layer, end)
    ]


@demand.register
def _of_calibration(spec: CalibrationSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    rows = living_rows(spec.tokens, spec.layers, spec.keep_ratios, spec.preserve, spec.layers[-1])
    held = kv_bytes(model, dtype, spec.tokens) * spec.documents
    work = forward(model, rows, 0) * spec.documents
    return Demand(_loaded(model, dtype) + work, weight_bytes(model, dtype) + held)


@demand.register
def _of_text(spec: TextSeries, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, tokens, continuation = shapes["model"], spec.prompt_tokens, spec.continuation_tokens
    work = _pruned(spec, model, tokens, continuation) + dense(model, continuation, continuation)
    # The unpruned model's logits are held while the arms run.
    held = 4.0 * continuation * model.vocabulary
    return _of_series(
        spec, model, work, dense(model, tokens + continuation, continuation), tokens + continuation, held
    )


@demand.register
def _of_retrieval(spec: RetrievalSeries, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, tokens = shapes["model"], spec.prompts.tokens
    answer = step(model, spec.compute.dtype, tokens) * ANSWER_TOKENS
    return _of_series(
        spec,
        model,
        _pruned(spec, model, tokens, ANSWER_TOKENS) + answer,
        dense(model, tokens) + answer,
        tokens,
    )


@demand.register
def _of_prefill(spec: PrefillSeries, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, tokens = shapes["model"], spec.prompt_tokens
    # Where top-k keeps the same numbers of rows in every document, the first one alone is warmed up.
    warmed = 0 if spec.selection == "top_k" else spec.warmup
    work = _pruned(spec, model, tokens) * (spec.repeats + warmed)
    return _of_series(spec, model, work, dense(model, tokens) * (2 * spec.repeats + warmed), tokens)


@demand.register
def _of_sweep(spec: SweepSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, dtype, tokens = shapes["model"], spec.compute.dtype, spec.tokens
    rounds = spec.warmup + spec.repeats
    unpruned, decoded = dense(model, tokens), step(model, dtype, tokens) * spec.new_tokens
    # In a round the reference runs twice: beside the library, beside the arms, and once more with decoding.
    work = unpruned * (3 * rounds) + (unpruned * 2 + decoded) * (2 * rounds)
    for ratio in spec.keep_ratios:
        rows = living_rows(tokens, spec.layers, [ratio] * len(spec.layers), spec.preserve, model.layers)
        pruned = forward(model, rows, 1)
        work += pruned * (2 * rounds + spec.repeats) + decoded * rounds
    # The library's cache is held beside the static one.
    memory = _resident(model, dtype, tokens + spec.new_tokens, 1) + kv_bytes(model, dtype, tokens)
    return Demand(_loaded(model, dtype) + work, memory)


@demand.register
def _of_teacher(spec: TeacherSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    sequences = spec.texts + spec.questions
    tokens = spec.prompt_tokens + spec.new_tokens
    batches = -(-sequences // spec.batch)
    work = step(model, dtype, tokens * spec.batch / 2, spec.batch) * (spec.new_tokens * batches)
    return Demand(_loaded(model, dtype) + work, _resident(model, dtype, tokens * spec.batch, spec.batch))


@demand.register
def _of_distillation(spec: DistilSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, teacher = shapes["model"], cast(TeacherSpec | None, inputs.get("teacher"))
    if teacher is None:
        return Demand(_loaded(model, "float32"), weight_bytes(model, "float32"))
    tokens = teacher.prompt_tokens + teacher.new_tokens
    draft = model.matrices / model.layers + spec.vocabulary * model.hidden
    sequences = (teacher.texts + teacher.questions) * spec.epochs
    work = Work(flops=6 * draft * tokens * spec.unroll * sequences)
    held = 16 * draft + spec.batch * tokens * spec.vocabulary * 8
    return Demand(_loaded(model, spec.compute.dtype) + work, weight_bytes(model, "float32") + held)


@demand.register
def _of_decoding(spec: DecodeSeries, shapes: Shapes, inputs: InputSpecs) -> Demand:
    dtype, prompt = spec.compute.dtype, spec.prompts.tokens or TYPICAL_PROMPT
    rounds = spec.discarded + spec.repeats
    arm = _arm(spec, shapes, dtype, prompt, spec.new_tokens)
    reference = _autoregressive(shapes["model"], dtype, prompt, spec.new_tokens)
    if spec.reference == "generate":
        # The library launches every layer itself.
        reference = replace(reference, layers=reference.layers + reference.replayed, replayed=0.0)
    tokens = prompt + spec.new_tokens
    return Demand(
        _all_loaded(shapes, spec.compute) + arm * rounds,
        _decoding_memory(tokens, shapes, spec.compute, [spec]),
        common=reference * (2 * rounds),
        kept=_caches(tokens, shapes, spec.compute, spec),
    )


@demand.register
def _of_benchmark(spec: BenchmarkSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    dtype, work = spec.compute.dtype, Work()
    library = sum(
        spec.assistant is not None or not isinstance(settings, TransformersAssisted)
        for settings in spec.transformers.values()
    )
    for tokens, count in _prompts(spec):
        plain = _autoregressive(shapes["model"], dtype, tokens, spec.new_tokens)
        for arm in spec.arms.values():
            runs = min(count, arm.prompts or count) * spec.repeats
            models = {role: shapes[name] for role, name in arm.inputs.items() if name in shapes}
            work += _arm(arm, {**shapes, **models}, dtype, tokens, spec.new_tokens) * runs
        work += plain * (library * count * spec.repeats)
    tokens = max(prompt for prompt, _ in _prompts(spec)) + spec.new_tokens
    memory = _decoding_memory(tokens, shapes, spec.compute, list(spec.arms.values()))
    return Demand(_all_loaded(shapes, spec.compute) + work, memory)


@demand.register
def _of_target_calibration(spec: TargetCostSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, dtype, work = shapes["model"], spec.compute.dtype, Work()
    for prefix in spec.prefixes:
        for rows in row_counts(spec.most_rows):
            work += step(model, dtype, prefix, rows) * (timings(rows, spec.repeats) + 1)
    for length in prompt_lengths(spec.prefixes[-1]):
        work += dense(model, length) * (spec.repeats + 1)
    memory = _resident(model, dtype, spec.prefixes[-1] + spec.most_rows, spec.most_rows)
    return Demand(_all_loaded(shapes, spec.compute) + work, memory)


@demand.register
def _of_acceptance(spec: AcceptanceSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    dtype, work = spec.compute.dtype, Work()
    pruning = TreePruning(tau=None, max_nodes=spec.max_nodes)
    tree = ArmSpec(drafter=spec.drafter, shape=spec.shape, pruning=pruning)
    for tokens, count in _prompts(spec):
        work += _drafts(tree, shapes, dtype, tokens, spec.new_tokens) * count
    memory = _replay_memory(spec, shapes, spec.max_nodes) + _traced_bytes(spec, shapes["model"], dtype)
    return Demand(_all_loaded(shapes, spec.compute) + work, memory, common=_continued(spec, shapes))


def _continued(spec: CostSpec | AcceptanceSpec, shapes: Shapes) -> Work:
    """Work of the continuations of all validation prompts."""
    work = Work()
    for tokens, count in _prompts(spec):
        work += _traces(shapes["model"], spec.compute.dtype, tokens, spec.new_tokens, count)
    return work


@demand.register
def _of_cost_calibration(spec: CostSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    dtype, work = spec.compute.dtype, Work()
    nodes = tree_nodes(spec.shape.depth, spec.shape.branching, spec.pruning.max_nodes)
    nodes = max(nodes, spec.max_nodes)
    tree = ArmSpec(drafter=spec.drafter, shape=spec.shape, pruning=spec.pruning)
    for tokens, count in _prompts(spec):
        # Three growths are decoded, each after a first prompt without a clock.
        work += _arm(tree, shapes, dtype, tokens, spec.new_tokens) * (3 * (min(spec.timed, count) + 1))
    memory = _replay_memory(spec, shapes, nodes) + _traced_bytes(spec, shapes["model"], dtype)
    return Demand(_all_loaded(shapes, spec.compute) + work, memory, common=_continued(spec, shapes))


@demand.register
def _of_replay(spec: ReplaySeries, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, dtype, prompt = shapes["model"], spec.compute.dtype, spec.prompts.tokens or TYPICAL_PROMPT
    tokens = prompt + spec.new_tokens
    # An arm keeps the cache of its drafter; that of the target is the one of all prompts of a batch.
    drafts = {name: shape for name, shape in shapes.items() if name != "model"}
    kept = _caches(tokens, drafts, spec.compute, spec)
    held = float(sum(weight_bytes(shape, dtype) for shape in shapes.values()))
    held += kv_bytes(model, dtype, TRACED * tokens) + activation_bytes(model, dtype, tokens, TRACED)
    return Demand(
        _all_loaded(shapes, spec.compute) + _drafts(spec, shapes, dtype, prompt, spec.new_tokens),
        held + kept,
        common=_traces(model, dtype, prompt, spec.new_tokens, 1),
        kept=kept,
    )


@demand.register
def _of_grid(spec: GridSpec, shapes: Shapes, inputs: InputSpecs) -> Demand:
    model, dtype = shapes["model"], spec.compute.dtype
    work = Work()
    for tokens, count in _prompts(spec):
        work += _traces(model, dtype, tokens, spec.new_tokens, count)
        # A replay drafts as decoding does, but runs no target forwards.
        rounds = sum(spec.lengths) / ACCEPTANCE * count
        work += Work(layers=rounds * sum(tree.shape.depth for tree in spec.trees))
    nodes = max(tree.pruning.max_nodes for tree in spec.trees)
    memory = _replay_memory(spec, shapes, nodes) + _traced_bytes(spec, model, dtype)
    return Demand(_all_loaded(shapes, spec.compute) + work, memory)


def _shapes(job: Job, known: Mapping[str, Any]) -> Iterator[tuple[str, ModelShape]]:
    """Shapes of a job's models, by the name of the input."""
    if job.stage.rule == "prepare_model":
        yield "model", shape_of_job(job, known)
    for name, artefact in job.inputs.items():
        if artefact.stage.rule == "prepare_model":
            yield name, shape_of_job(artefact, known)


def _loaded(model: ModelShape, dtype: Dtype) -> Work:
    """Work of reading a checkpoint."""
    return Work(loaded=weight_bytes(model, dtype))


def _resident(model: ModelShape, dtype: Dtype, tokens: int, head_rows: int) -> float:
    """Bytes of the weights, of a KV cache, and of the activations of a forward."""
    return (
        weight_bytes(model, dtype)
        + kv_bytes(model, dtype, tokens)
        + activation_bytes(model, dtype, tokens, head_rows)
    )


def _of_series(
    spec: PrunedSeries, model: ModelShape, work: Work, common: Work, longest: int, held: float = 0.0
) -> Demand:
    """Demand of one item of a series: its work, that of the unpruned model, and the memory of its prompt.

    Args:
        spec: The series.
        model: Its model.
        work: Work of the arm.
        common: Work of the unpruned model.
        longest: Tokens that a forward reads.
        held: Bytes held besides.
    """
    dtype = spec.compute.dtype
    head_rows = spec.continuation_tokens if isinstance(spec, TextSeries) else 1
    memory = _resident(model, dtype, longest, head_rows) + kv_bytes(model, dtype, longest) + held
    if spec.saliency is not None:
        rows = spec.saliency.loss_tokens or longest
        memory += gradient_bytes(model, dtype, longest, spec.layers[0], masked=False, loss_tokens=rows)
    if spec.mask == "soft":
        memory += 4.0 * longest**2
    return Demand(_loaded(model, dtype) + work, memory, common)


def _retrieval_windows(spec: SaliencySpec) -> int:
    """Training windows that hold a retrieval prompt."""
    return spec.retrieval.count if spec.retrieval else 0


def _gradient(model: ModelShape, tokens: int, loss_tokens: int, first: int) -> Work:
    """Work of a forward and of its backward to layer `first`; through frozen weights it costs a forward."""
    return dense(model, tokens, loss_tokens) + dense(model, tokens, loss_tokens, first)


def _pruned(spec: PrunedSeries, model: ModelShape, tokens: int, following: int = 0) -> Work:
    """Work of a pruned prefill, with that of its scores where they need products of their own.

    Args:
        spec: The series.
        model: Its model.
        tokens: Tokens of the prompt.
        following: Tokens that follow it, which the oracle reads.
    """
    rows = (
        [tokens] * model.layers
        if spec.mask == "soft"
        else living_rows(tokens, spec.layers, spec.keep_ratios, spec.preserve, model.layers)
    )
    scores = NOTHING
    if spec.importance == "oracle":
        scores = _gradient(model, tokens + following, following, spec.layers[0])
    elif spec.saliency is not None:
        scores = _gradient(model, tokens, spec.saliency.loss_tokens or tokens, spec.layers[0])
    elif window := {"attention_last": 1, "attention_window": ATTENTION_WINDOW}.get(spec.importance):
        # Keys of all rows, queries of the last ones, and their products.
        scored = sum(([tokens, *rows])[layer] for layer in spec.layers)
        keys, queries = model.kv_width * scored, model.attention_width * window * len(spec.layers)
        scores = Work(flops=2 * (model.hidden * (keys + queries) + model.attention_width * window * scored))
    return forward(model, rows, 1) + scores


def _arm(spec: ArmSpec, shapes: Shapes, dtype: Dtype, prompt: int, new: int) -> Work:
    """Work of one generation of `new` tokens by a decoding arm, after a prompt of `prompt` tokens."""
    model = shapes["model"]
    if spec.drafter is None or spec.shape is None or spec.pruning is None:
        return _autoregressive(model, dtype, prompt, new)
    adaptation = spec.adaptation
    depth = adaptation.max_depth if isinstance(adaptation, DynamicTree) else spec.shape.depth
    nodes = tree_nodes(depth, spec.shape.branching, spec.pruning.max_nodes)
    if spec.pruning.tau is not None or adaptation is not None:
        nodes = min(nodes, PRUNED_NODES)
    context, rounds = prompt + new / 2, new / ACCEPTANCE
    decoding_round = step(model, dtype, context, 1 + nodes)
    if spec.drafter.kind == "neural":
        decoding_round += step(shapes["draft"], dtype, context) * depth
    return dense(model, prompt) + decoding_round * rounds


def _autoregressive(model: ModelShape, dtype: Dtype, prompt: int, new: int) -> Work:
    """Work of one generation of `new` tokens without drafts, after a prompt of `prompt` tokens."""
    return dense(model, prompt) + step(model, dtype, prompt + new / 2) * new


def _traces(model: ModelShape, dtype: Dtype, prompt: int, new: int, count: int) -> Work:
    """Work of greedy continuations of `count` prompts, decoded side by side."""
    together = step(model, dtype, TRACED * (prompt + new / 2), TRACED) * (new / TRACED)
    return (dense(model, prompt) + together) * count


def _drafts(spec: ArmSpec, shapes: Shapes, dtype: Dtype, prompt: int, new: int) -> Work:
    """Work of the drafts of one generation, without forwards of the target."""
    if spec.shape is None:
        return Work()
    levels = spec.shape.depth * new / ACCEPTANCE
    if spec.drafter.kind == "neural":
        return dense(shapes["draft"], prompt) + step(shapes["draft"], dtype, prompt + new / 2) * levels
    return Work(layers=levels)


def _prompts(spec: Prompted) -> list[tuple[int, int]]:
    """Tokens and number of the prompts of each kind."""
    return [(prompts.tokens or TYPICAL_PROMPT, prompts.count) for prompts in spec.prompts]


def _all_loaded(shapes: Shapes, compute: Compute) -> Work:
    return Work(loaded=sum(weight_bytes(shape, compute.dtype) for shape in shapes.values()))


def _decoding_memory(tokens: int, shapes: Shapes, compute: Compute, arms: list[ArmSpec]) -> float:
    """Bytes of the weights, of the caches of arms and reference, and of the logits of a whole tree."""
    model, dtype = shapes["model"], compute.dtype
    held = float(sum(weight_bytes(shape, dtype) for shape in shapes.values()))
    held += sum(_caches(tokens, shapes, compute, arm) for arm in arms) + kv_bytes(model, dtype, tokens)
    return held + activation_bytes(model, dtype, tokens, head_rows=257)


def _caches(tokens: int, shapes: Shapes, compute: Compute, arm: ArmSpec) -> float:
    """Bytes of the KV caches of an arm."""
    nodes = arm.pruning.max_nodes if arm.pruning is not None else 0
    return sum(kv_bytes(shape, compute.dtype, tokens + nodes) for shape in shapes.values())


def _traced_bytes(spec: Prompted, model: ModelShape, dtype: Dtype) -> float:
    """Bytes of the KV cache of the prompts that are continued side by side, the longest of them."""
    lengths = [tokens + spec.new_tokens for tokens, count in _prompts(spec) for _ in range(count)]
    return kv_bytes(model, dtype, sum(sorted(lengths)[-TRACED:]))


def _replay_memory(spec: CostSpec | AcceptanceSpec | GridSpec, shapes: Shapes, nodes: int) -> float:
    tokens = max(prompt for prompt, _ in _prompts(spec)) + spec.new_tokens + nodes
    return sum(_resident(shape, spec.compute.dtype, tokens, nodes) for shape in shapes.values())
