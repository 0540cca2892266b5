"""The table of mutations, of what should be made after each, and of what would be."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.workflow.mutations.jobs import RENDERING
from tests.workflow.mutations.study import Verdict

NAMED = 4
"""Blocks or results of one kind that are named; more are counted."""


def as_markdown(verdicts: Iterable[Verdict]) -> str:
    """One row per mutation."""
    lines = ["| mutation | should run | would run | |", "|---|---|---|---|"]
    for verdict in verdicts:
        mutation = verdict.mutation
        wrong = [
            *([f"missed: {_listed(verdict.missed)}"] if verdict.missed else []),
            *([f"needless: {_listed(verdict.needless)}"] if verdict.needless else []),
        ]
        allowed = f" (may: {_listed(mutation.allowed)})" if mutation.allowed else ""
        expected = _listed(verdict.expected) + allowed
        # An edit may be named by several lines.
        name = " ".join(mutation.name.split())
        lines.append(f"| {name} | {expected} | {_listed(verdict.actual)} | {'; '.join(wrong) or 'ok'} |")
    return "\n".join(lines)


def totals(verdicts: Sequence[Verdict]) -> str:
    """How many mutations, and how many blocks and results were missed or needless."""
    missed, needless = (
        sum(len(getattr(verdict, name)) for verdict in verdicts) for name in ("missed", "needless")
    )
    return f"{len(verdicts)} mutations: {missed} blocks and results missed, {needless} needless"


def _listed(jobs: Iterable[str]) -> str:
    """Blocks and results by kind: few by name, many by number; all rendering as one word."""
    left = set(jobs)
    parts = []
    if left >= RENDERING:
        parts = ["the paper"]
        left -= RENDERING
    kinds = Counter(job.split()[0] for job in left)
    for kind in sorted(kinds):
        names = sorted(job for job in left if job.split()[0] == kind)
        if len(names) > NAMED:
            parts.append(f"{len(names)} x {kind}")
        else:
            parts.append(", ".join([names[0], *(name.removeprefix(f"{kind} ") for name in names[1:])]))
    return "; ".join(parts) or "nothing"
