"""Time and memory of finished jobs, from Snakemake's benchmark files."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

BENCHMARKS = Path("benchmarks")
# Columns that are read, and their values; Snakemake writes `-` or `NA` where it could not measure.
_COLUMNS = {"s": r"\d{1,9}(\.\d+)?", "max_rss": r"\d{1,9}(\.\d+)?|-|NA"}


def measurements(rule: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Stem of each benchmark file of a rule, and the file's last row by column.

    The stem is `DIGEST` or, for a shard of a job, `DIGEST.SHARD`. Files without rows and damaged files are
    skipped.
    """
    for path in sorted((BENCHMARKS / rule).glob("*.tsv")):
        try:
            with path.open(encoding="utf-8") as text:
                rows = list(csv.DictReader(text, delimiter="\t"))
        except (csv.Error, UnicodeDecodeError):
            continue
        if rows and all(re.fullmatch(pattern, str(rows[-1].get(name))) for name, pattern in _COLUMNS.items()):
            yield path.stem, rows[-1]


def seconds_by_digest(rule: str) -> dict[str, float]:
    """Seconds of each finished job of a rule, the sum over its shards."""
    seconds: dict[str, float] = defaultdict(float)
    for stem, row in measurements(rule):
        seconds[stem.partition(".")[0]] += float(row["s"])
    return seconds
