"""What is fitted to measured drafts: shares of accepted nodes, and the cost of a level and of a row."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, nnls

BINS = 24


def acceptance_curve(stated: NDArray, right: NDArray) -> tuple[list[float], list[float]]:
    """Share of accepted nodes by stated path probability, as a rising piecewise linear curve.

    Nodes are put into `BINS` bins of about equal sums of stated probability, which are as many
    acceptances as the draft promises: improbable nodes are many, and probable ones decide. The bins'
    shares are made non-decreasing (isotonic regression, weighted by count; Zadrozny and Elkan, 2002). A
    path of probability 0 is never accepted; above the last bin its share holds.

    Args:
        stated: ``[nodes]`` path probabilities.
        right: ``[nodes]`` bool, which were accepted.

    Returns:
        Stated probabilities, rising from 0 to 1, and accepted shares.
    """
    order = np.argsort(stated, kind="stable")
    promised = stated[order].cumsum()
    edges = np.searchsorted(promised, promised[-1] * np.arange(1, BINS) / BINS)
    bins = [part for part in np.split(order, edges) if len(part)]
    centres = np.array([stated[part].mean() for part in bins])
    shares = isotonic_regression(
        [right[part].mean() for part in bins], weights=[len(part) for part in bins]
    ).x
    rises = np.flatnonzero(np.diff(centres, prepend=0.0) > 0)
    centres, shares = centres[rises], shares[rises]
    if centres[-1] < 1.0:
        centres, shares = np.append(centres, 1.0), np.append(shares, shares[-1])
    return [0.0, *centres.tolist()], [0.0, *shares.tolist()]


def draft_costs(levels: list[tuple[int, float]]) -> tuple[float, float]:
    """Seconds of a level and of a row, fitted to metered levels by non-negative least squares."""
    rows, seconds = np.array(levels).T
    (level, row), _ = nnls(np.stack([np.ones_like(rows), rows], axis=1), seconds)
    return float(level), float(row)
