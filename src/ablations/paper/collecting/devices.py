"""Times of one device do not compare with those of another."""

from collections.abc import Iterable, Mapping
from itertools import groupby

from ablations.core.errors import UserError
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.records import ExperimentRecords
from ablations.paper.results.sdtp import SweepResult


def require_one_device(
    arms: Mapping[str, ExperimentRecords], sweeps: Iterable[SweepResult], settings: PaperSettings
) -> None:
    """Check that what tables put side by side was timed on one device, unless the study says otherwise.

    A sweep stands beside the SDTP experiments. Prefills over ranks stand for themselves: where there are
    fewer GPUs than ranks they run on the CPU.

    Raises:
        UserError: lengths of the sweep were timed on different devices, whatever the study says; or
            experiments of one kind were, and the study does not say `mix_devices`.
    """
    sweeps = list(sweeps)
    _require_one_sweep(sweeps)
    if not settings.mix_devices:
        timed = [(_kind(arm), arm.device, name) for name, arm in arms.items() if arm.device]
        timed += [("sdtp", point.file.device, "the sweep") for point in sweeps[:1] if point.file.device]
        for _, kind in groupby(sorted(timed), key=lambda item: item[0]):
            _require_one({device: [item[2] for item in found] for device, found in _by_device(kind)})


def _require_one_sweep(sweeps: Iterable[SweepResult]) -> None:
    lengths = sorted((point.file.device, str(point.tokens)) for point in sweeps)
    found = {
        device: list(dict.fromkeys(item[1] for item in points))
        for device, points in groupby(lengths, key=lambda item: item[0])
    }
    if len(found) > 1:
        raise UserError(
            f"the sweep's lengths were timed on different devices ({_listed(found)});"
            " delete the results/sweep/ of all but one and run snakemake again"
        )


def _kind(arm: ExperimentRecords) -> str:
    over_ranks = getattr(arm.record.spec, "pipeline", None) is not None
    return f"{arm.experiment.method}{' over ranks' if over_ranks else ''}"


def _by_device(kind: Iterable[tuple[str, str, str]]) -> Iterable[tuple[str, list[tuple[str, str, str]]]]:
    return ((device, list(found)) for device, found in groupby(kind, key=lambda item: item[1]))


def _require_one(found: Mapping[str, list[str]]) -> None:
    if len(found) > 1:
        raise UserError(
            f"times of different devices do not compare ({_listed(found)}): let snakemake measure the fewer"
            " again on the other (`python -m ablations.study forget ID`; for a sweep delete results/sweep/),"
            " or set paper.mix_devices: true,"
            " which leaves such comparisons out"
        )


def _listed(found: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{', '.join(names)} on {device}" for device, names in found.items())
