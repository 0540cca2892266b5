"""What finished jobs took, as Snakemake's benchmark files have it."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

BENCHMARKS = Path("benchmarks")
# `-` where Snakemake could not tell.
_WANTED = {"s": r"\d{1,9}(\.\d+)?", "max_rss": r"\d{1,9}(\.\d+)?|-|NA"}


def measurements(rule: str) -> Iterator[tuple[str, dict[str, str]]]:
    """What a rule's finished jobs took, by the stem of the benchmark file.

    The stem is `DIGEST` or, of a share of a job, `DIGEST.SHARE`; what it took is the file's last row, by
    column. A file without rows, or a damaged one, says nothing.
    """
    for path in sorted((BENCHMARKS / rule).glob("*.tsv")):
        try:
            with path.open(encoding="utf-8") as text:
                rows = list(csv.DictReader(text, delimiter="\t"))
        except (csv.Error, UnicodeDecodeError):
            continue
        if rows and all(re.fullmatch(pattern, str(rows[-1].get(name))) for name, pattern in _WANTED.items()):
            yield path.stem, rows[-1]


def seconds_by_digest(rule: str) -> dict[str, float]:
    """Seconds of each finished job of a rule, its shares added up."""
    found: dict[str, float] = defaultdict(float)
    for stem, measured in measurements(rule):
        found[stem.partition(".")[0]] += float(measured["s"])
    return found
