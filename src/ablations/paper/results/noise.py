"""What the measurements of a method say where there is no effect."""

from pydantic import NonNegativeFloat, PositiveInt

from ablations.core.contract import Contract
from ablations.evidence.expectations import Method
from ablations.paper.results.files import RecordFile


class Noise(Contract):
    """Absolute log speed-up of a reference's second run in a round over its first, medians over rounds."""

    method: Method
    """Method whose references these are."""
    median: NonNegativeFloat
    """Median over measurements."""
    p95: NonNegativeFloat
    """95th percentile of measurements."""
    n: PositiveInt
    """Measurements: of each document one, or several where experiments did not share it."""
    files: tuple[RecordFile, ...]
    """Records that hold the times."""
