"""The DynaTree experiments of a study as jobs."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from ablations.core.errors import UserError
from ablations.core.files import canonical_json, sha256_text
from ablations.specs.dynatree.arm import (
    DRAFTED_FROM,
    ArmSpec,
    CostAwareTree,
    DistilledDraftSpec,
    DraftSpec,
    HybridDraftSpec,
    Mixture,
    NeuralDraftSpec,
    NgramDraftSpec,
    Shape,
    TreePruning,
)
from ablations.specs.dynatree.benchmark import BenchmarkArm, BenchmarkRuns, BenchmarkSpec
from ablations.specs.dynatree.calibrate_costs import CostSpec, CostTiming
from ablations.specs.dynatree.decode import DecodeRuns, DecodeSeries, DecodeSpec
from ablations.specs.dynatree.fit_ngram import NgramSpec
from ablations.specs.dynatree.grid import GridSpec, GridTree
from ablations.specs.dynatree.prompts import PromptKind, PromptSelection, PromptSet
from ablations.specs.userfiles import content_hash, user_path
from ablations.study.config.changes import require_isolated, resolved, selected
from ablations.study.config.dynatree import (
    CostCalibration,
    DecodingBudget,
    DistilledChoice,
    DrafterChoice,
    DynatreeBaseline,
    Grids,
    HybridChoice,
    NeuralChoice,
    NgramChoice,
    Prompts,
)
from ablations.study.config.study import StudyConfig
from ablations.study.planning.jobs import (
    DIGEST_LENGTH,
    Artefacts,
    Job,
    Row,
    Sources,
    ablation_row,
    configured_by,
)
from ablations.study.planning.stages import (
    BENCHMARK,
    CALIBRATE_COSTS,
    DECODE,
    DISTIL,
    DISTIL_TEACHER,
    FIT_NGRAM,
    GRID,
    JOIN,
)

ReplayedTrees = tuple[tuple[GridTree, ...], tuple[int, ...]]
"""Configurations, and the lengths to which each is replayed."""


def replayed_trees(grids: Grids, baseline: DynatreeBaseline) -> dict[str, ReplayedTrees]:
    """The grid of trees (`trees`), and that of generated lengths (`lengths`)."""
    full = GridTree(shape=baseline.shape, pruning=baseline.pruning)
    trees = [
        GridTree(
            shape=Shape(depth=depth, branching=branching),
            pruning=TreePruning(tau=tau, max_nodes=grids.max_nodes),
        )
        for depth, branching, tau in product(grids.depths, grids.branchings, grids.taus)
    ]
    return {
        "trees": ((*_linear_trees(grids.linear, grids.max_nodes), *trees), (grids.new_tokens,)),
        "lengths": (
            (full, *_linear_trees([baseline.shape.depth], baseline.pruning.max_nodes)),
            grids.lengths,
        ),
    }


def largest_tree(grids: Grids, baseline: DynatreeBaseline) -> tuple[Shape, int]:
    """Greatest depth and branching of all of them, and the most nodes that any of them can have."""
    trees = [tree for trees, _ in replayed_trees(grids, baseline).values() for tree in trees]
    shape = Shape(
        depth=max(tree.shape.depth for tree in trees), branching=max(tree.shape.branching for tree in trees)
    )
    return shape, max(tree.nodes for tree in trees)


def _linear_trees(depths: Iterable[int], max_nodes: int) -> list[GridTree]:
    return [
        GridTree(
            shape=Shape(method="linear", depth=depth, branching=1),
            pruning=TreePruning(tau=None, max_nodes=max_nodes),
        )
        for depth in depths
    ]


def distinct_rows(rows: Iterable[Row]) -> dict[str, Row]:
    """Decoding experiments by the digest of their job; of those that share one, the first."""
    rows_by_digest: dict[str, Row] = {}
    for row in rows:
        rows_by_digest.setdefault(row.jobs[0].digest, row)
    return rows_by_digest


def benchmark_arm(row: Row) -> tuple[str, BenchmarkArm, dict[str, Job]]:
    """A decoding experiment as an arm.

    Returns:
        A name that follows from what the arm does, so that renaming an experiment measures nothing; the arm;
        and the jobs that make what it drafts from, by their names in the benchmark.
    """
    (job,) = row.jobs
    inputs = next(iter(job.inputs.values())).inputs
    # A text of the prompts is no input of an arm; what two arms draft from may differ.
    artefacts = {name: inputs[name] for name in DRAFTED_FROM if name in inputs}
    names = {name: f"{name}_{artefact.digest}" for name, artefact in artefacts.items()}
    arm = BenchmarkArm(
        **job.spec.fields_of(ArmSpec), inputs=names, prompts=row.experiment.budget.get("prompts")
    )
    digest = sha256_text(canonical_json(arm.model_dump(mode="json")))[:DIGEST_LENGTH]
    return f"arm_{digest}", arm, {names[name]: artefact for name, artefact in artefacts.items()}


class DrafterPlanner:
    """Plans what drafters need, shared wherever it is the same.

    Args:
        drafters: Drafters by name; what they refer to is there.
        target: The job that makes the target.
        artefacts: Plans models and texts.
        sources: Code and pins.
    """

    def __init__(
        self, drafters: Mapping[str, DrafterChoice], target: Job, artefacts: Artefacts, sources: Sources
    ) -> None:
        self._drafters = drafters
        self._target = target
        self._artefacts = artefacts
        self._sources = sources
        self._planned: dict[str, tuple[DraftSpec, dict[str, Job]]] = {}

    def drafter(self, name: str, key: str) -> tuple[DraftSpec, dict[str, Job]]:
        """The drafter called `name`, and the inputs that a decoding job needs for it.

        Args:
            name: Name in the configuration.
            key: Key of the experiment that names it, for errors.

        Raises:
            UserError: no such drafter.
        """
        if name not in self._drafters:
            raise UserError(
                f"{key}.change.drafter: {name!r} is not in dynatree.drafters ({', '.join(self._drafters)})"
            )
        if name not in self._planned:
            self._planned[name] = self._plan(name)
        return self._planned[name]

    def _plan(self, name: str) -> tuple[DraftSpec, dict[str, Job]]:
        settings = self._drafters[name]
        match settings:
            case NeuralChoice():
                return NeuralDraftSpec(), {"draft": self._artefacts.model(settings.model)}
            case NgramChoice():
                return NgramDraftSpec(**settings.fields_of(NgramDraftSpec)), self._ngram(settings)
            case DistilledChoice():
                return DistilledDraftSpec(), self._distilled(name)
            case HybridChoice():
                ngram = self._drafters[settings.ngram]
                assert isinstance(ngram, NgramChoice)
                spec = HybridDraftSpec(context_weight=ngram.context_weight, **settings.fields_of(Mixture))
                return spec, self._distilled(settings.distilled) | self._ngram(ngram)
            case _:
                return settings, {}

    def _ngram(self, settings: NgramChoice) -> dict[str, Job]:
        spec = NgramSpec(**settings.fields_of(NgramSpec))
        texts = {name: self._artefacts.text(name) for name in settings.texts}
        return {"ngram": Job(FIT_NGRAM, spec, self._sources, {"model": self._target, **texts})}

    def _distilled(self, name: str) -> dict[str, Job]:
        settings = self._drafters[name]
        assert isinstance(settings, DistilledChoice)
        inputs, files = {"model": self._target}, {}
        if settings.distil.epochs:
            assert settings.teacher and settings.text
            text = self._artefacts.text(settings.text)
            read = {"model": self._target, "text": text}
            inputs["teacher"] = Job(DISTIL_TEACHER, settings.teacher, self._sources, read)
        if settings.distil.start is not None:
            key = f"dynatree.drafters.{name}.distil.start"
            start = user_path(settings.distil.start)
            files["start"] = content_hash(start, key, self._sources.hashes.sha256)
        return {"distilled": Job(DISTIL, settings.distil, self._sources, inputs, files)}


class DynatreePlanner:
    """Plans each decoding experiment."""

    def __init__(self, config: StudyConfig, artefacts: Artefacts, sources: Sources) -> None:
        self._config = config.dynatree
        self._artefacts = artefacts
        self._sources = sources
        self._target = artefacts.model(config.dynatree.target)
        self._drafters = DrafterPlanner(config.dynatree.drafters, self._target, artefacts, sources)

    def rows(self) -> Iterator[Row]:
        """Each experiment with the job that measures it.

        Raises:
            UserError: a change is impossible, or means nothing beside the rest of the configuration.
        """
        config = self._config
        chosen = selected(config.ablations, config.only)
        arms = resolved("dynatree", config.baseline, chosen)
        for name, ablation in chosen.items():
            job = self._decode(arms[name].components, ablation.budget, f"dynatree.ablations.{name}")
            budget = ablation.budget.model_dump() if ablation.budget else {}
            yield ablation_row("dynatree", name, ablation, arms[name], (job,), budget)
        require_isolated("dynatree", chosen, arms)

    def benchmark(self, rows: Iterable[Row]) -> Job | None:
        """The job that measures the distinct arms of decoding experiments side by side.

        Args:
            rows: Decoding experiments with their jobs.

        Returns:
            The job; None where the configuration has no benchmark, or the study no decoding experiment.
        """
        settings = self._config.benchmark
        rows_by_digest = distinct_rows(rows)
        if settings is None or not rows_by_digest:
            return None
        inputs = {"model": self._target}
        arms = {}
        for row in rows_by_digest.values():
            name, arms[name], artefacts = benchmark_arm(row)
            inputs |= artefacts
        prompts, texts = self._prompts(self._config.prompts, None)
        if settings.prompts is not None:
            prompts = tuple(
                prompt_set.model_copy(update={"count": settings.prompts}) for prompt_set in prompts
            )
        decoding = self._config.decoding
        spec = BenchmarkSpec(
            arms=arms,
            assistant=next((arm.inputs["draft"] for arm in arms.values() if "draft" in arm.inputs), None),
            prompts=prompts,
            new_tokens=settings.new_tokens or decoding.new_tokens,
            warmup=decoding.warmup,
            compute=settings.compute or decoding.compute,
            **settings.fields_of(BenchmarkRuns),
        )
        return Job(BENCHMARK, spec, self._sources, inputs | texts)

    def _decode(self, components: DynatreeBaseline, budget: DecodingBudget | None, key: str) -> Job:
        config = self._config
        inputs = {"model": self._target}
        drafter, pruning = None, components.pruning
        drafts = components.drafter is not None
        if components.drafter is not None:
            drafter, extra = self._drafters.drafter(components.drafter, key)
            inputs |= extra
            if isinstance(components.adaptation, CostAwareTree):
                cap = min(pruning.max_nodes, self._calibration(key).max_nodes)
                if cap < components.shape.depth:
                    raise UserError(
                        f"dynatree.calibration.max_nodes: {cap} nodes cannot hold a path of depth"
                        f" {components.shape.depth}, which {key} drafts; raise it or lower the depth"
                    )
                # Costs of larger trees are not measured; the spec says so.
                pruning = pruning.model_copy(update={"max_nodes": cap})
                inputs["costs"] = self._costs(components.shape, cap, drafter, extra, key)
        prompts, texts = self._prompts(config.prompts, budget.prompts if budget else None)
        spec = DecodeSpec(
            drafter=drafter,
            shape=components.shape if drafts else None,
            pruning=pruning if drafts else None,
            adaptation=components.adaptation if drafts else None,
            reference="autoregressive" if drafts else "generate",
            prompts=prompts,
            **config.decoding.fields_of(DecodeRuns),
        )
        shared = {name: getattr(spec, name) for name in DecodeSeries.model_fields if name != "prompts"}
        measured = {}
        for prompt_set in prompts:
            series = DecodeSeries(**shared, prompts=PromptKind(**prompt_set.fields_of(PromptKind)))
            texts_of = {**inputs, prompt_set.text: texts[prompt_set.text]}
            measured[prompt_set.kind] = Job(DECODE, series, self._sources, texts_of, count=prompt_set.count)
        return Job(JOIN, spec, self._sources, measured)

    def _prompts(
        self, kinds: Mapping[str, Prompts], most: int | None
    ) -> tuple[tuple[PromptSet, ...], dict[str, Job]]:
        """Prompt sets of a spec, at most so many prompts of each kind, and the texts they are taken from."""
        sets = []
        for kind, prompts in kinds.items():
            count = min(prompts.count, most or prompts.count)
            sets.append(PromptSet(kind=kind, **prompts.fields_of(PromptSelection) | {"count": count}))
        return tuple(sets), {prompts.text: self._artefacts.text(prompts.text) for prompts in sets}

    def grids(self) -> dict[str, Job]:
        """The grid of trees (`trees`) and that of generated lengths (`lengths`); none where not asked for.

        Raises:
            UserError: the baseline drafts nothing, or there is no calibration.
        """
        grids, baseline, key = self._config.grids, self._config.baseline, "dynatree.grids"
        if grids is None or self._config.only == ():
            return {}
        if baseline.drafter is None:
            raise UserError(f"{key}: the baseline has no drafter; name one in dynatree.baseline.drafter")
        drafter, extra = self._drafters.drafter(baseline.drafter, "dynatree.baseline")
        prompts, texts = self._prompts(self._config.prompts, None)
        with configured_by(key, {"pruning": key}):
            shape, nodes = largest_tree(grids, baseline)
        costs = self._costs(shape, nodes, drafter, extra, key)
        inputs = {"model": self._target, "costs": costs} | extra | texts
        compute = self._config.decoding.compute
        return {
            name: Job(
                GRID,
                GridSpec(
                    drafter=drafter,
                    trees=trees,
                    lengths=lengths,
                    prompts=prompts,
                    new_tokens=lengths[-1],
                    compute=compute,
                ),
                self._sources,
                inputs,
            )
            for name, (trees, lengths) in replayed_trees(grids, baseline).items()
        }

    def _calibration(self, key: str) -> CostCalibration:
        if self._config.calibration is None:
            raise UserError(f"{key}: calibrated costs are needed; add the key dynatree.calibration")
        return self._config.calibration

    def _costs(
        self, shape: Shape, max_nodes: int, drafter: DraftSpec, extra: dict[str, Job], key: str
    ) -> Job:
        calibration = self._calibration(key)
        prompts, texts = self._prompts(calibration.prompts, None)
        spec = CostSpec(
            drafter=drafter,
            shape=shape,
            max_nodes=max_nodes,
            prompts=prompts,
            compute=self._config.decoding.compute,
            **calibration.fields_of(CostTiming),
        )
        return Job(CALIBRATE_COSTS, spec, self._sources, {"model": self._target} | extra | texts)
