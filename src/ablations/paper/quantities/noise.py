"""Numbers of the noise of timing."""

from collections.abc import Iterator

from ablations.paper.formatting import percent_difference
from ablations.paper.quantities.quantity import Measured, Quantity, quantities
from ablations.paper.summary import Summary

_AGAIN = (
    "abs(log(samples[].pairs[].reference / samples[].pairs[].again), median over pairs), each value of a"
    " document once"
)
NOISE = (
    Measured("median", f"{_AGAIN}, median", "log ratio", percent_difference),
    Measured("p95", f"{_AGAIN}, 95th percentile", "log ratio", percent_difference),
)


def noise_quantities(summary: Summary) -> Iterator[Quantity]:
    """How far references are from themselves, by method (`noise.sdtp.median`)."""
    for noise in summary.noise:
        yield from quantities(f"noise.{noise.method}", NOISE, noise, noise.files)
