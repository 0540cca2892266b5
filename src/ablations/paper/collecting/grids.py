"""Replayed grids as results."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ablations.core.record import read_contract
from ablations.evidence.inputs import GridName, PaperSettings
from ablations.evidence.statistics import estimate, tokens_per_forward
from ablations.paper.results.files import RecordFile, record_file
from ablations.paper.results.grid import GridResult
from ablations.specs.dynatree.grid import Grid, GridPoint


def grid_results(
    paths: Mapping[GridName, str], name: GridName, settings: PaperSettings
) -> tuple[GridResult, ...]:
    """Points of the grid called `name`; by kind of prompts too where it is that of lengths.

    Raises:
        UserError: the grid is damaged.
    """
    path = Path(paths.get(name, ""))
    if not path.is_file():
        return ()
    grid = read_contract(path, Grid)
    file = record_file(str(path), grid.environment, grid.digests)
    found = []
    for point in grid.points:
        kinds = dict.fromkeys(sample.kind for sample in point.samples) if name == "lengths" else ()
        results = [_result(file, point, kind, settings) for kind in (None, *kinds)]
        found += [result for result in results if result is not None]
    return tuple(found)


def _result(
    file: RecordFile, point: GridPoint, kind: str | None, settings: PaperSettings
) -> GridResult | None:
    """None where every prompt ended with its first token, so that there were no rounds to price."""
    samples = [sample for sample in point.samples if kind in (None, sample.kind) and sample.rounds]
    if not samples:
        return None
    prices = {
        f"{sample.kind}/{sample.document}": math.log(sample.reference_seconds / sample.seconds)
        for sample in samples
    }
    rounds, accepted, drafted = (
        sum(getattr(sample, field) for sample in samples) for field in ("rounds", "accepted", "drafted")
    )
    return GridResult(
        file=file,
        shape=point.tree.shape,
        tau=point.tree.pruning.tau,
        tokens=point.tokens,
        kind=kind,
        speedup=estimate(pd.Series(prices), settings.thresholds.alpha),
        tokens_per_forward=tokens_per_forward(accepted, rounds),
        nodes_per_round=drafted / rounds,
        new_tokens=float(np.mean([sample.new_tokens for sample in samples])),
        repeated_4grams=float(np.mean([sample.repeated_4grams for sample in samples])),
    )
