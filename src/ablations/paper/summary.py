"""Everything the renderers need, computed once from the records: the contract between the paper rules."""

from collections import Counter
from typing import Any

from ablations.core.contract import Contract, Identifier
from ablations.core.record import Outcome
from ablations.evidence.decisions import Decision, OutcomeStatus, decided
from ablations.evidence.expectations import Expectation, Method
from ablations.evidence.inputs import FamilyPlan, PaperSettings
from ablations.evidence.statistics import Comparison, Endpoint, Estimate
from ablations.paper.results.decoding import DecodingProtocol, DecodingResult
from ablations.paper.results.files import RecordFile
from ablations.paper.results.grid import GridResult
from ablations.paper.results.models import ModelFacts, SaliencyMap
from ablations.paper.results.noise import Noise
from ablations.paper.results.sdtp import ScorerRanking, SdtpProtocol, SdtpResult, SweepResult


class Difference(Contract):
    """One setting in which an arm's spec differs from that of the experiment it is compared with."""

    key: str
    """Dotted key of the spec."""
    versus: Any
    """Value of the other experiment; null where it has none."""
    arm: Any
    """Value of the arm; null where it has none."""


class Row(Contract):
    """One experiment of the study, whether it ran or not."""

    id: Identifier
    """Id in the configuration."""
    method: Method
    """Which method it belongs to."""
    title: str
    """What tables call it."""
    section: str
    """Subsection of the paper it belongs to."""
    step: str | None
    """What the row adds or removes."""
    change: dict[str, Any]
    """What differs from the baseline."""
    hypothesis: str | None
    """What the experiment tests."""
    expect: Expectation
    """What the hypothesis predicts."""
    versus: Identifier | None
    """Experiment the effect is measured against."""
    seeds: tuple[int, ...]
    """Training seeds of its scorer, one per record; empty where no trained scorer plays a part."""
    files: tuple[RecordFile, ...]
    """Its records, one per seed."""
    status: OutcomeStatus
    """How it ended: `ok` where all its records say so."""
    outcome: Outcome | None
    """Exception of a crashed arm; null where there is no record."""
    differences: tuple[Difference, ...]
    """What its spec changes against `versus`; empty where either has no record."""
    scorer_shared: bool | None
    """Whether it used the same trained scorer as `versus`; null where either has none, or no result."""
    sdtp: SdtpResult | None
    """Result of a pruning configuration that ran."""
    decoding: DecodingResult | None
    """Result of a decoding configuration that ran."""
    nll_effect: Estimate | None
    """Effect on the NLL of text against `versus`, nats per token, beside that on the KL divergence."""
    parts: tuple[Decision, ...]
    """Each prediction, and what came of it."""

    @property
    def ordered_against(self) -> tuple[Identifier, ...]:
        """Experiments besides `versus` whose speed a prediction sets beside its own, each once."""
        named = [part.against for part in self.parts if part.aspect in ("above", "below", "about")]
        return tuple(dict.fromkeys(name for name in named if name is not None and name != self.versus))


class Machine(Contract):
    """Where and with what some of the experiments were measured."""

    method: Method
    """Method of these experiments."""
    experiments: tuple[Identifier, ...]
    """Experiments; empty where only the prompt-length sweep was measured there."""
    host: str
    """Anonymised name of the host."""
    device: str
    """Name of the device."""
    device_type: str
    """`cpu` or `cuda`."""
    threads: int
    """CPU threads of a job."""
    dtype: str
    """Data type of weights and activations."""
    platform: str
    """Operating system and processor architecture."""
    versions: dict[str, str]
    """Installed versions."""
    git_commit: str | None
    """Commit of the working tree."""
    git_dirty: bool | None
    """Whether tracked files differed from it."""


class Summary(Contract):
    """Output of `ablations.paper.collect`, input of tables, figures and text."""

    study: str
    """Name of the study."""
    settings: PaperSettings
    """How the section is written."""
    models: dict[str, str]
    """What the paper calls each model, by role."""
    sources: dict[str, str]
    """Name on the hub, or folder, of each model that has one, by role."""
    texts: dict[str, str]
    """What the paper calls each text, by role."""
    facts: dict[str, ModelFacts]
    """Facts of each model, by role; one whose checkpoint is gone is left out."""
    saliency: SaliencyMap | None
    """Saliency that the baseline's scorer is measured against; null without a scorer."""
    rows: tuple[Row, ...]
    """Every experiment, in the order of the section."""
    comparisons: tuple[Comparison, ...]
    """Every effect: rows against their `versus`, backward rows against the full method, orderings; intervals
    and p-values are of one comparison each."""
    ranking: tuple[ScorerRanking, ...]
    """Every trained scorer, in the order of the first experiment that uses it."""
    sweeps: tuple[SweepResult, ...]
    """Prompt-length sweeps that have run, by length and falling keep ratio."""
    tree_grid: tuple[GridResult, ...]
    """Drafts of many shapes, replayed."""
    length_grid: tuple[GridResult, ...]
    """The full method's tree and a line of its depth, replayed to several lengths, in all and by kind."""
    sdtp: SdtpProtocol | None
    """How SDTP was measured; null where no record says."""
    decoding: DecodingProtocol | None
    """How decoding was measured; null where no record says."""
    family: FamilyPlan | None
    """Plan of the confirmatory family; null without one."""
    noise: tuple[Noise, ...]
    """Noise of timing, of each method whose references ran twice in a round."""
    machines: tuple[Machine, ...]
    """Where it was measured, one entry per method and environment."""

    @property
    def elsewhere(self) -> dict[str, str]:
        """Devices of the experiments that ran on another one than most of their method, by id."""
        found: dict[str, str] = {}
        for method in dict.fromkeys(machine.method for machine in self.machines):
            usual = self._usual_device(method)
            places = self._places(method)
            found |= {name: device for name, device in places if device != usual}
        return found

    @property
    def sweep_elsewhere(self) -> str | None:
        """Device of the sweep where it is another one than that of most SDTP experiments; else None."""
        device = self.sweeps[0].file.device if self.sweeps else None
        return None if self._usual_device("sdtp") in (None, device) else device

    @property
    def decided(self) -> tuple[int, int]:
        """Confirmatory predictions that are decided, and all of them."""
        return decided([part for row in self.rows for part in row.parts])

    def _places(self, method: Method) -> list[tuple[str, str]]:
        """Experiments of a method with their devices."""
        machines = (machine for machine in self.machines if machine.method == method)
        return [(name, machine.device) for machine in machines for name in machine.experiments]

    def _usual_device(self, method: Method) -> str | None:
        most = Counter(device for _, device in self._places(method)).most_common(1)
        return most[0][0] if most else None

    def row(self, name: str | None) -> Row | None:
        """The experiment called `name`; None where the study does not have it, or for null."""
        return next((row for row in self.rows if row.id == name), None)

    def comparison(self, arm: str, versus: str | None, measure: Endpoint) -> Comparison | None:
        """The effect of `arm` against `versus`; None where one of them has no result."""
        return next(
            (
                item
                for item in self.comparisons
                if (item.arm, item.versus, item.measure) == (arm, versus, measure)
            ),
            None,
        )

    def counted_speed(self, row: Row) -> float | None:
        """Log ratio of prefill FLOPs of `versus` to a row's, where it was not timed; None without results."""
        other = self.row(row.versus)
        if row.sdtp is None or row.sdtp.speedup is not None or other is None or other.sdtp is None:
            return None
        return row.sdtp.counted_speedup - other.sdtp.counted_speedup
