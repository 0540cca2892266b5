"""The share of drafted nodes that the target accepts, by the probability that the draft states."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

BINS = 24

MIN_PATH_PROBABILITY = 1e-3
"""Nodes of a smaller path probability are not counted: no tree at any costs measured so far has them."""


def acceptance_curve(stated: NDArray, accepted: NDArray) -> tuple[list[float], list[float]]:
    """Share of accepted nodes by stated path probability, as a rising piecewise linear curve.

    Nodes are sorted into `BINS` bins of about equal sums of stated probability, that is, of equal numbers of
    acceptances that the draft expects. With equal numbers of nodes, the many improbable nodes would fill most
    bins. The bins' shares are made non-decreasing (isotonic regression, weighted by count; Zadrozny and
    Elkan, 2002). The curve is 0 at probability 0, constant above the last bin; without nodes it is 0.

    Args:
        stated: ``[nodes]`` path probabilities.
        accepted: ``[nodes]`` bool, which nodes were accepted.

    Returns:
        Stated probabilities, ascending from 0 to 1, and accepted shares.
    """
    if not len(stated):
        return [0.0, 1.0], [0.0, 0.0]
    order = np.argsort(stated, kind="stable")
    expected = stated[order].cumsum()
    edges = np.searchsorted(expected, expected[-1] * np.arange(1, BINS) / BINS)
    bins = [nodes for nodes in np.split(order, edges) if len(nodes)]
    centres = np.array([stated[nodes].mean() for nodes in bins])
    shares = isotonic_regression(
        [accepted[nodes].mean() for nodes in bins], weights=[len(nodes) for nodes in bins]
    ).x
    distinct = np.flatnonzero(np.diff(centres, prepend=0.0) > 0)
    centres, shares = centres[distinct], shares[distinct]
    if centres[-1] < 1.0:
        centres, shares = np.append(centres, 1.0), np.append(shares, shares[-1])
    return [0.0, *centres.tolist()], [0.0, *shares.tolist()]
