"""Effects: results of an arm minus those of another one, paired by document and training seed."""

from collections.abc import Mapping
from math import isnan
from typing import NamedTuple

import pandas as pd

from ablations.core.contract import Identifier
from ablations.evidence.corrected import corrected_estimate, corrected_mean
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.records import ExperimentRecords, comparable
from ablations.evidence.statistics import (
    ANY_SEED,
    Comparison,
    Endpoint,
    Mean,
    SeedVariance,
    compare,
    crossed_mean,
    differences,
    pooled,
    seed_variance,
)


class _Corrected(NamedTuple):
    """An effect on speed from priced prompts.

    Attributes:
        mean: The effect.
        prompts: Prompts that were priced for both sides.
    """

    mean: Mean
    prompts: int


class Effects:
    """Effects between the arms of a study.

    How much trained rows differ from training to training is estimated from each row, and from all trained
    confirmatory rows that are compared with the same one.

    Args:
        arms: All arms, by id.
        settings: Which rows are confirmatory, and what intervals cover.
    """

    def __init__(self, arms: Mapping[str, ExperimentRecords], settings: PaperSettings) -> None:
        self._arms = arms
        self._confirmatory = [*settings.confirmatory.sdtp, *settings.confirmatory.dynatree]
        self._alpha = settings.thresholds.alpha

    def mean(
        self, arm: Identifier, versus: Identifier | None, measure: Endpoint, first: int | None = None
    ) -> Mean | None:
        """An effect and its errors.

        Args:
            arm: Experiment.
            versus: Experiment that it is compared with; None for the reference beside it.
            measure: What is compared.
            first: Documents that are taken, the first of each arm; None takes all. Of quality both arms must
                have them; times are of fewer documents, and those there are are taken.

        Returns:
            None where an arm has no such result, none that compares, or too few documents.
        """
        if (corrected := self._corrected(arm, versus, measure)) is not None:
            return corrected.mean
        paired = self._paired(arm, versus, measure, first)
        if paired is None or (first is not None and measure != "speed" and len(paired) < first):
            return None
        return crossed_mean(
            paired.to_numpy(dtype=float), self._pool(arm, versus, measure, first, paired.shape[1])
        )

    def comparison(self, arm: Identifier, versus: Identifier | None, measure: Endpoint) -> Comparison | None:
        """An effect on all documents with its unadjusted interval; None as of `mean`."""
        if (corrected := self._corrected(arm, versus, measure)) is not None:
            return Comparison(
                arm=arm,
                versus=versus,
                measure=measure,
                estimate=corrected_estimate(corrected.mean, corrected.prompts, self._alpha),
                unpaired=0,
                p=float(corrected.mean.p(0.0)),
                seeds=1,
                these_trainings=None,
            )
        paired = self._paired(arm, versus, measure, None)
        if paired is None:
            return None
        return compare(
            self._arms[arm].values[measure],
            None if versus is None else self._arms[versus].values[measure],
            self._alpha,
            names=(arm, versus),
            measure=measure,
            pool=self._pool(arm, versus, measure, None, paired.shape[1]),
        )

    def _corrected(self, arm: Identifier, versus: Identifier | None, measure: Endpoint) -> _Corrected | None:
        """Effect on speed from priced prompts, corrected by the timed ones; None where none were priced."""
        own, other = self._arms[arm], self._arms.get(versus or "")
        if measure != "speed" or (own.priced is None and (other is None or other.priced is None)):
            return None
        sides = [own] if versus is None else [own, other]
        if any(side is None or (side.priced is None and not side.is_autoregressive) for side in sides):
            return None
        paired = self._paired(arm, versus, measure, None)
        if paired is None:
            return None
        prices = [0.0 if side.priced is None else side.priced for side in sides]
        priced = (prices[0] - prices[1] if len(prices) > 1 else prices[0]).dropna()
        measured = paired[ANY_SEED]
        return _Corrected(corrected_mean(measured[measured.index.isin(priced.index)], priced), len(priced))

    def _paired(
        self, arm: Identifier, versus: Identifier | None, measure: Endpoint, first: int | None
    ) -> pd.DataFrame | None:
        own, other = self._arms[arm], self._arms.get(versus or "")
        sides = [own.values.get(measure)]
        if versus is not None:
            if other is None or (measure == "speed" and not comparable(own, other)):
                return None
            sides.append(other.values.get(measure))
        tables = [table.iloc[:first] for table in sides if table is not None]
        if len(tables) < len(sides):
            return None
        paired = differences(tables[0], tables[1] if versus is not None else None)
        return None if paired.empty else paired

    def _pool(
        self, arm: Identifier, versus: Identifier | None, measure: Endpoint, first: int | None, seeds: int
    ) -> SeedVariance | None:
        """Variance between seeds of the confirmatory rows that `arm` is one of; None where it is none."""
        if seeds == 1 or versus is None or versus not in self._arms or arm not in self._confirmatory:
            return None
        rows = [
            name
            for name in self._confirmatory
            if name in self._arms
            and self._arms[name].experiment.versus == versus
            and self._arms[name].experiment.seeds
            and self._arms[versus].experiment.seeds
        ]
        if arm not in rows:
            return None
        tables = (self._paired(name, versus, measure, first) for name in rows)
        variances = [
            seed_variance(table.to_numpy(dtype=float))
            for table in tables
            if table is not None and table.shape[1] == seeds and len(table) >= (first or 0)
        ]
        return pooled([variance for variance in variances if not isnan(variance)], seeds)
