"""Calibrated costs of a drafter, read from where its calibration wrote them."""

from pathlib import Path

from ablations.core.artefact import open_artefact
from ablations.core.record import read_contract
from ablations.specs.dynatree.costs import COSTS_FILE, Costs


def read_costs(manifest: Path) -> Costs:
    """Read what `ablations.dynatree.calibrate_costs` made.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    return read_contract(folder / COSTS_FILE, Costs)
