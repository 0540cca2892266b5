"""How far the reference is from itself: the noise of timing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablations.evidence.expectations import Method
from ablations.evidence.records import ExperimentRecords, repeated_references
from ablations.paper.results.noise import Noise
from ablations.paper.summary import Row


class Repeated(NamedTuple):
    """References that ran a second time in their rounds.

    Attributes:
        items: Document and log speed-up over itself, each once: experiments that were measured side by side
            have the same ones.
        experiments: Experiments that have some.
    """

    items: set[tuple[str, float]]
    experiments: list[str]


def add_repeated(found: dict[Method, Repeated], arm: ExperimentRecords) -> None:
    """Take in the references of one arm."""
    if own := repeated_references(arm):
        of_method = found.setdefault(arm.experiment.method, Repeated(set(), []))
        of_method.items.update(own)
        of_method.experiments.append(arm.experiment.id)


def noises(found: Mapping[Method, Repeated], rows: Sequence[Row]) -> Iterator[Noise]:
    """The noise of each method whose references ran twice."""
    for method, repeated in found.items():
        sizes = np.abs([noise for _, noise in repeated.items])
        rows_of_method = (row for row in rows if row.id in repeated.experiments)
        yield Noise(
            method=method,
            median=float(np.median(sizes)),
            p95=float(np.quantile(sizes, 0.95)),
            n=len(sizes),
            # Experiments may share a record.
            files=tuple(
                {file.path: file for row in rows_of_method for file in row.files if file.sha256}.values()
            ),
        )
