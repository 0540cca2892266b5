"""Time and memory of what was done here: Snakemake's benchmark files, and the blocks of series."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ablations.core.block import block_path, cover
from ablations.core.errors import UserError
from ablations.core.panel import PanelFile, read_panel
from ablations.study.planning.jobs import Job
from ablations.study.planning.panels import PlannedPanel
from ablations.study.planning.stages import BLOCKS, PANEL, Stage

BENCHMARKS = Path("benchmarks")
# Columns that are read, and their values; Snakemake writes `-` or `NA` where it could not measure.
_COLUMNS = {"s": r"\d{1,9}(\.\d+)?", "max_rss": r"\d{1,9}(\.\d+)?|-|NA"}


def measurements(rule: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Digest of each finished job or panel of a rule, and the last row of its benchmark file by column.

    Files without rows and damaged files are skipped.
    """
    for path in sorted((BENCHMARKS / rule).glob("*.tsv")):
        try:
            with path.open(encoding="utf-8") as text:
                rows = list(csv.DictReader(text, delimiter="\t"))
        except (csv.Error, UnicodeDecodeError):
            continue
        if rows and all(re.fullmatch(pattern, str(rows[-1].get(name))) for name, pattern in _COLUMNS.items()):
            yield path.stem, rows[-1]


def seconds_by_digest(rule: str) -> dict[str, float]:
    """Seconds of each finished job or panel of a rule."""
    return {digest: float(row["s"]) for digest, row in measurements(rule)}


@dataclass(frozen=True)
class ItemTime:
    """Time of a series for one item, from its last block.

    Attributes:
        kind: Module and measure of the series.
        seconds: Seconds of its own; what it shares with others of its panel is not counted.
    """

    kind: tuple[str, str]
    seconds: float


def item_times() -> dict[str, ItemTime]:
    """Time for one item of each series that has a block here, by digest; damaged blocks are skipped."""
    times = {}
    for folder in sorted(Path(BLOCKS).parent.glob("*")):
        if spans := cover(folder).spans:
            first, end = spans[-1]
            try:
                block = json.loads(block_path(folder, spans[-1]).read_bytes())
                seconds = float(block["environment"]["seconds"]) / (end - first)
                times[folder.name] = ItemTime(_kind(block["module"], block["spec"]), seconds)
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
                RecursionError,
                ZeroDivisionError,
            ):
                continue
    return times


class PastTimes:
    """Typical seconds of jobs and panels, medians of what was done in the working directory."""

    def __init__(self) -> None:
        self._times = item_times()
        by_kind: dict[tuple[str, str], list[float]] = defaultdict(list)
        for time in self._times.values():
            by_kind[time.kind].append(time.seconds)
        self._items = {kind: median(seconds) for kind, seconds in by_kind.items()}
        self._rules: dict[str, float | None] = {}

    def job(self, job: Job) -> float | None:
        """Seconds of a job that runs by itself; None where its rule was never timed."""
        return self._typical(job.stage)

    def panel(self, panel: PlannedPanel) -> float | None:
        """Seconds of a panel; None where its rule, or what it measures, was never timed."""
        typical = self._typical(panel.stage)
        if typical is None:
            return None
        if not panel.stage.has_blocks:
            return typical * len(panel.jobs)
        seconds = typical
        for job, entry in zip(panel.jobs, panel.file.entries, strict=True):
            item = self._items.get(_kind(job.stage.module, job.spec.model_dump(mode="json")))
            if item is None:
                return None
            seconds += item * sum(end - first for first, end in entry.spans)
        return seconds

    def _typical(self, stage: Stage) -> float | None:
        """Median seconds of a rule: of its jobs, or of a panel of series beside its items."""
        if stage.rule not in self._rules:
            seconds = [
                each
                for digest, whole in seconds_by_digest(stage.rule).items()
                if (each := self._share(stage, digest, whole)) is not None
            ]
            self._rules[stage.rule] = median(seconds) if seconds else None
        return self._rules[stage.rule]

    def _share(self, stage: Stage, digest: str, seconds: float) -> float | None:
        """What a benchmark file says of a job, or of a panel beside its items; None where files are gone."""
        if not stage.panel:
            return seconds
        try:
            file: PanelFile = read_panel(Path(PANEL.format(panel=digest)))
        except UserError:
            return None
        if not stage.has_blocks:
            return seconds / len(file.entries)
        for entry in file.entries:
            if entry.digest not in self._times:
                return None
            seconds -= self._times[entry.digest].seconds * sum(end - first for first, end in entry.spans)
        return max(0.0, seconds)


def _kind(module: str, spec: Mapping[str, Any]) -> tuple[str, str]:
    return str(module), str(spec.get("measure", ""))
