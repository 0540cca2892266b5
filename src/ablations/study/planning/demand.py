"""What a job asks a scheduler for: memory and time, bounded from its spec and the size of its model.

Generous bounds, not predictions: too little ends a job, too much only lets it wait a little longer.
"""

import json
from math import ceil

from ablations.study.config import Resources
from ablations.study.contracts.base import Contract
from ablations.study.contracts.benchmark import BenchmarkSpec
from ablations.study.contracts.dynatree import DistilSpec, Prompted, TeacherSpec
from ablations.study.contracts.grid import GridSpec
from ablations.study.contracts.lm import PrepareModelSpec
from ablations.study.contracts.sdtp import (
    CalibrationSpec,
    EvaluateSpec,
    PrunerSpec,
    ReferenceSpec,
    SaliencySpec,
    SweepSpec,
)
from ablations.study.planning.jobs import Job

# Interpreter, libraries and texts take about 1 GiB; activations of a small model fit into the other.
BASE_MIB = 2048
# Of a job that prepares a checkpoint, whose size it finds out; enough for two billion parameters.
PREPARED_MIB = 8192
# The weights as read, as kept, and as packed for speed; a prepared checkpoint may be in float32.
COPIES, BYTES = 3, 4
# Starting, loading, and waiting for another job's device lock.
BASE_MINUTES = 20
# What the slowest machines that a study is meant for do, FLOP/s: of one CPU thread, of one GPU.
THREAD_RATE, GPU_RATE = 1e10, 2e12
# A forward of one token reads all weights, which takes as long as computing some tokens at once.
DECODED = 8
# Tokens of a prompt that is taken whole.
WHOLE_PROMPT = 512
# A backward pass costs two forward passes (Kaplan et al., arXiv 2001.08361, section 2.1).
TRAINED = 3


def memory_mib(job: Job, settings: Resources, ranks: int) -> int:
    """Host memory of a job, MiB; each of its ranks loads the model."""
    if settings.mem_mb is not None:
        return settings.mem_mb * ranks
    if isinstance(job.spec, PrepareModelSpec):
        return PREPARED_MIB
    return ranks * (BASE_MIB + ceil(COPIES * BYTES * parameters(job) / 2**20))


def minutes(job: Job, settings: Resources) -> int:
    """Time limit of a job, minutes: no more than the longest that the site allows."""
    compute = getattr(job.spec, "compute", None)
    rate = GPU_RATE if settings.gpu else THREAD_RATE * (compute.threads if compute else 1)
    # Two operations per parameter and token (Kaplan et al., section 2.1).
    seconds = 2 * parameters(job) * forwarded_tokens(job) / rate
    return min(settings.runtime, BASE_MINUTES + ceil(seconds / 60))


def parameters(job: Job) -> int:
    """Parameters of the model that a job runs; 0 if it runs none, or none is prepared yet.

    A scheduler is asked when a job's inputs are there, so only a dry run can see too little.
    """
    if "model" not in job.inputs:
        return 0
    try:
        return json.loads(job.inputs["model"].path.read_bytes())["facts"]["parameters"]
    except FileNotFoundError:
        return 0


def forwarded_tokens(job: Job) -> int:
    """Tokens that a job computes; backward passes and single-token steps count as what they cost."""
    spec = job.spec
    match spec:
        case SaliencySpec():
            return TRAINED * (spec.documents + spec.heldout_documents) * spec.tokens
        case PrunerSpec():
            windows = job.inputs["saliency"].spec
            return TRAINED * (spec.epochs + 1) * windows.documents * windows.tokens
        case CalibrationSpec():
            return spec.documents * spec.tokens
        case ReferenceSpec() | EvaluateSpec():
            return _evaluated(spec)
        case SweepSpec():
            pairs = len(spec.keep_ratios) * (spec.repeats + spec.warmup)
            return 2 * pairs * (2 * spec.tokens + DECODED * spec.new_tokens)
        case TeacherSpec():
            return (spec.texts + spec.questions) * (spec.prompt_tokens + DECODED * spec.new_tokens)
        case DistilSpec():
            teacher = job.inputs["teacher"].spec
            written = (teacher.texts + teacher.questions) * (teacher.prompt_tokens + teacher.new_tokens)
            return TRAINED * (spec.epochs + 1) * written
        case Prompted():
            return _prompted(spec)
        case _:
            return 0


def _evaluated(spec: Contract) -> int:
    windows, retrieval = spec.windows, spec.retrieval
    found = 2 * windows.documents * (windows.prompt_tokens + windows.continuation_tokens)
    if timing := getattr(spec, "timing", None):
        found += 2 * timing.documents * (timing.repeats + timing.warmup) * windows.prompt_tokens
    if retrieval:
        found += 2 * len(retrieval.depths) * retrieval.keys * retrieval.tokens
    return found


def _prompted(spec: Prompted) -> int:
    prompts = sum(
        chosen.count * ((chosen.tokens or WHOLE_PROMPT) + DECODED * spec.new_tokens)
        for chosen in spec.prompts
    )
    if isinstance(spec, BenchmarkSpec):
        return prompts * (len(spec.arms) + len(spec.transformers)) * (spec.repeats + spec.warmup)
    if isinstance(spec, GridSpec):
        return prompts * len(spec.trees)
    return 2 * prompts * (spec.repeats + 1)
