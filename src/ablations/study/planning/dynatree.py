"""The DynaTree experiments of a study as jobs."""

from collections.abc import Iterable, Iterator, Mapping

from ablations.study.changes import require_isolated, resolved, selected
from ablations.study.config.dynatree import CostCalibration, DecodingBudget, DynatreeBaseline, Prompts
from ablations.study.config.study import StudyConfig
from ablations.study.contracts.benchmark import BenchmarkSpec
from ablations.study.contracts.dynatree import (
    CostAwareTree,
    CostSpec,
    DecodeSpec,
    DraftSpec,
    PromptSet,
    Shape,
)
from ablations.study.contracts.grid import GridSpec
from ablations.study.errors import UserError
from ablations.study.planning.arms import benchmark_arm, distinct
from ablations.study.planning.artefacts import Artefacts
from ablations.study.planning.drafters import DrafterPlanner
from ablations.study.planning.grids import largest, swept
from ablations.study.planning.jobs import Job, Sources
from ablations.study.planning.rows import Row, ablation_row
from ablations.study.planning.stages import BENCHMARK, CALIBRATE_COSTS, DECODE, GRID


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
        chosen = distinct(rows)
        if settings is None or not chosen:
            return None
        inputs = {"model": self._target}
        arms = {}
        for row in chosen.values():
            name, arms[name], made = benchmark_arm(row)
            inputs |= made
        prompts, texts = self._prompts(self._config.prompts, None)
        if settings.prompts is not None:
            prompts = tuple(chosen.model_copy(update={"count": settings.prompts}) for chosen in prompts)
        decoding = self._config.decoding
        spec = BenchmarkSpec(
            arms=arms,
            transformers=settings.transformers,
            assistant=next((arm.inputs["draft"] for arm in arms.values() if "draft" in arm.inputs), None),
            prompts=prompts,
            new_tokens=settings.new_tokens or decoding.new_tokens,
            repeats=settings.repeats,
            warmup=decoding.warmup,
            compute=settings.compute or decoding.compute,
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
            new_tokens=config.decoding.new_tokens,
            repeats=config.decoding.repeats,
            discarded=config.decoding.discarded,
            warmup=config.decoding.warmup,
            compute=config.decoding.compute,
        )
        return Job(DECODE, spec, self._sources, inputs | texts)

    def _prompts(
        self, kinds: Mapping[str, Prompts], most: int | None
    ) -> tuple[tuple[PromptSet, ...], dict[str, Job]]:
        """Prompt sets of a spec, at most so many prompts of each kind, and the texts they are taken from."""
        sets = [
            PromptSet(
                kind=kind,
                text=chosen.text,
                split=chosen.split,
                count=min(chosen.count, most) if most else chosen.count,
                tokens=chosen.tokens,
                chat=chosen.chat,
            )
            for kind, chosen in kinds.items()
        ]
        return tuple(sets), {chosen.text: self._artefacts.text(chosen.text) for chosen in sets}

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
        shape, nodes = largest(grids, baseline)
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
            for name, (trees, lengths) in swept(grids, baseline).items()
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
            prefix=calibration.prefix,
            repeats=calibration.repeats,
            prompts=prompts,
            new_tokens=calibration.new_tokens,
            compute=self._config.decoding.compute,
        )
        return Job(CALIBRATE_COSTS, spec, self._sources, {"model": self._target} | extra | texts)
