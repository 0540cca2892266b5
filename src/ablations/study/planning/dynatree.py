"""The DynaTree experiments of a study as jobs."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from ablations.core.errors import UserError
from ablations.core.files import canonical_json, sha256_text
from ablations.specs.dynatree.arm import (
    DRAFTED_FROM,
    ArmSpec,
    CostAwareTree,
    Shape,
    TreePruning,
)
from ablations.specs.dynatree.benchmark import BenchmarkArm, BenchmarkRuns, BenchmarkSpec
from ablations.specs.dynatree.decode import DecodeRuns, DecodeSeries, DecodeSpec
from ablations.specs.dynatree.grid import GridSpec, GridTree
from ablations.specs.dynatree.prompts import PromptKind, PromptSet
from ablations.specs.dynatree.replay import COSTS, REPLAYED, ReplaySeries
from ablations.study.config.changes import require_isolated, resolved, selected
from ablations.study.config.dynatree import (
    DecodingBudget,
    DynatreeBaseline,
    Grids,
)
from ablations.study.config.study import StudyConfig
from ablations.study.planning.drafters import CalibrationPlanner, DrafterPlanner, prompt_sets
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
    DECODE,
    GRID,
    JOIN,
    REPLAY,
    Stage,
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


def _linear_trees(depths: Iterable[int], max_nodes: int) -> list[GridTree]:
    return [
        GridTree(
            shape=Shape(method="linear", depth=depth, branching=1),
            pruning=TreePruning(tau=None, max_nodes=max_nodes),
        )
        for depth in depths
    ]


def distinct_rows(rows: Iterable[Row]) -> dict[str, Row]:
    """Decoding experiments by the name of their arm; of those that share one, the first."""
    rows_by_arm: dict[str, Row] = {}
    for row in rows:
        rows_by_arm.setdefault(benchmark_arm(row)[0], row)
    return rows_by_arm


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


def _with_the_whole_budget(config: StudyConfig) -> set[str]:
    """Confirmatory decoding experiments, and those that they are compared with."""
    ablations = config.dynatree.ablations
    whole = {name for name in config.paper.confirmatory.dynatree if name in ablations}
    for ablation in [ablations[name] for name in whole]:
        expect = ablation.expect
        whole |= {*expect.above, *expect.below, *expect.about}
        versus = ablation.origin or ablation.versus
        if expect.speed and versus:
            whole.add(versus)
    return whole


class DynatreePlanner:
    """Plans each decoding experiment."""

    def __init__(self, config: StudyConfig, artefacts: Artefacts, sources: Sources) -> None:
        self._config = config.dynatree
        self._artefacts = artefacts
        self._sources = sources
        self._target = artefacts.model(config.dynatree.target)
        compute = config.dynatree.decoding.compute
        self._calibrations = CalibrationPlanner(
            config.dynatree.calibration, compute, self._target, artefacts, sources
        )
        self._drafters = DrafterPlanner(
            config.dynatree.drafters, self._target, artefacts, sources, self._calibrations
        )
        self._whole = _with_the_whole_budget(config)

    def rows(self) -> Iterator[Row]:
        """Each experiment with the job that measures it.

        Raises:
            UserError: a change is impossible, or means nothing beside the rest of the configuration.
        """
        config = self._config
        chosen = selected(config.ablations, config.only)
        arms = resolved("dynatree", config.baseline, chosen)
        for name, ablation in chosen.items():
            timed = self._timed(name, ablation.budget)
            job = self._decode(arms[name].components, timed, f"dynatree.ablations.{name}")
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
        rows_by_arm = distinct_rows(rows)
        if settings is None or not rows_by_arm:
            return None
        inputs = {"model": self._target}
        arms = {}
        for row in rows_by_arm.values():
            name, arms[name], artefacts = benchmark_arm(row)
            inputs |= artefacts
        decoding = self._config.decoding
        prompts, texts = prompt_sets(self._config.prompts, decoding.timed, self._artefacts)
        if settings.prompts is not None:
            prompts = tuple(
                prompt_set.model_copy(update={"count": settings.prompts}) for prompt_set in prompts
            )
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

    def _timed(self, name: str, budget: DecodingBudget | None) -> int | None:
        """Most prompts of each kind on which an experiment is timed; None for all."""
        decoding = self._config.decoding
        whole = name in self._whole or decoding.exploratory is None
        counts = (decoding.timed if whole else decoding.exploratory, budget.prompts if budget else None)
        return min((count for count in counts if count is not None), default=None)

    def _decode(self, components: DynatreeBaseline, timed: int | None, key: str) -> Job:
        config = self._config
        inputs = {"model": self._target}
        drafter, pruning = None, components.pruning
        drafts = components.drafter is not None
        if components.drafter is not None:
            drafter, extra = self._drafters.drafter(components.drafter, key)
            inputs |= extra
            if isinstance(components.adaptation, CostAwareTree):
                cap = min(pruning.max_nodes, self._calibrations.settings(key).max_nodes)
                if cap < components.shape.depth:
                    raise UserError(
                        f"dynatree.calibration.max_nodes: {cap} nodes cannot hold a path of depth"
                        f" {components.shape.depth}, which {key} drafts; raise it or lower the depth"
                    )
                # Costs of larger trees are not measured; the spec says so.
                pruning = pruning.model_copy(update={"max_nodes": cap})
                inputs[COSTS] = self._calibrations.costs(drafter, extra, key)
        prompts, texts = prompt_sets(config.prompts, timed, self._artefacts)
        every, _ = prompt_sets(config.prompts, None, self._artefacts)
        spec = DecodeSpec(
            drafter=drafter,
            calibrated=drafts and self._calibrations.wanted,
            shape=components.shape if drafts else None,
            pruning=pruning if drafts else None,
            adaptation=components.adaptation if drafts else None,
            reference="autoregressive" if drafts else "generate",
            prompts=prompts,
            replayed=every if drafts and config.decoding.timed else (),
            **config.decoding.fields_of(DecodeRuns),
        )
        measured = self._series(DECODE, DecodeSeries, spec, spec.prompts, inputs | texts)
        if drafter and spec.replayed:
            replayed = self._series(REPLAY, ReplaySeries, spec, spec.replayed, inputs | texts)
            measured |= {f"{REPLAYED}{kind}": job for kind, job in replayed.items()}
            measured[COSTS] = self._calibrations.costs(drafter, extra, "dynatree.decoding.timed")
        return Job(JOIN, spec, self._sources, measured)

    def _series(
        self,
        stage: Stage,
        contract: type[DecodeSeries] | type[ReplaySeries],
        spec: DecodeSpec,
        prompts: Iterable[PromptSet],
        inputs: Mapping[str, Job],
    ) -> dict[str, Job]:
        """The series of an experiment by kind of prompts.

        Args:
            stage: What makes them.
            contract: Their contract.
            spec: What they have in common.
            prompts: Kinds, and how many prompts are wanted of each.
            inputs: All that they read; a series does not read the other kinds' texts.
        """
        shared = {name: getattr(spec, name) for name in contract.model_fields if name != "prompts"}
        texts = {prompt_set.text for prompt_set in prompts}
        found = {}
        for wanted in prompts:
            series = contract(**shared, prompts=PromptKind(**wanted.fields_of(PromptKind)))
            read = {name: job for name, job in inputs.items() if name == wanted.text or name not in texts}
            found[wanted.kind] = Job(stage, series, self._sources, read, count=wanted.count)
        return found

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
        prompts, texts = prompt_sets(self._config.prompts, None, self._artefacts)
        with configured_by(key, {"pruning": key}):
            planned = replayed_trees(grids, baseline)
        costs = self._calibrations.costs(drafter, extra, key)
        inputs = {"model": self._target, COSTS: costs} | extra | texts
        compute = self._config.decoding.compute
        return {
            name: Job(
                GRID,
                GridSpec(
                    drafter=drafter,
                    calibrated=self._calibrations.wanted,
                    trees=trees,
                    lengths=lengths,
                    prompts=prompts,
                    new_tokens=lengths[-1],
                    compute=compute,
                ),
                self._sources,
                inputs,
            )
            for name, (trees, lengths) in planned.items()
        }
