"""What finished jobs took, as Snakemake's benchmark files have it."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

BENCHMARKS = Path("benchmarks")


def benchmark_files(rule: str) -> Iterator[Path]:
    """Benchmark files of a rule's finished jobs, `DIGEST.tsv` or, of a share of a job, `DIGEST.SHARE.tsv`."""
    yield from sorted((BENCHMARKS / rule).glob("*.tsv"))


def last_row(path: Path) -> dict[str, str]:
    """The last measurement of a benchmark file, by column."""
    with path.open(encoding="utf-8") as rows:
        return list(csv.DictReader(rows, delimiter="\t"))[-1]


def seconds_by_digest(rule: str) -> dict[str, float]:
    """Seconds of each finished job of a rule, its shares added up."""
    found: dict[str, float] = defaultdict(float)
    for path in benchmark_files(rule):
        found[path.name.partition(".")[0]] += float(last_row(path)["s"])
    return found
