"""Records that each figure is drawn from, for the comment that stands above it."""

from ablations.paper.results.files import RecordFile
from ablations.paper.results.grid import GridResult
from ablations.paper.results.models import SaliencyMap
from ablations.paper.results.sdtp import SweepResult
from ablations.paper.summary import Row, Summary
from ablations.paper.tables import backward_rows, decoding_rows, drafting_rows, pipeline_rows, sdtp_rows

_SECTIONS = {"keep_ratio": ("ratio",), "living": ("ratio", "layers"), "losses": ("losses",)}


def drawn_from(summary: Summary, name: str) -> list[tuple[str, RecordFile]]:
    """Files of the figures that the float called `name` has, each with the experiment it belongs to."""
    points: dict[str, tuple[SweepResult | GridResult | SaliencyMap, ...]] = {
        "sweep": summary.sweeps,
        "bound": () if summary.sweep_elsewhere else summary.sweeps,
        "grid": summary.tree_grid,
        "grid_lengths": summary.length_grid,
        "saliency": (summary.saliency,) if summary.saliency else (),
    }
    files = [(row.id, file) for row in _rows(summary, name) for file in row.files if file.sha256]
    return list(dict.fromkeys([*files, *((name, point.file) for point in points.get(name, ()))]))


def _rows(summary: Summary, name: str) -> list[Row]:
    if name in _SECTIONS:
        return [row for row in sdtp_rows(summary) if not row.change or row.section in _SECTIONS[name]]
    rows = {
        "bound": sdtp_rows(summary),
        "traffic": pipeline_rows(summary),
        "rounds": drafting_rows(summary),
        "forward": decoding_rows(summary, summary.settings.forward),
        "backward": backward_rows(summary),
    }
    return rows.get(name, [])
