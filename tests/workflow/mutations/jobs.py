"""The jobs of the tiny study and what each reads, written by hand from `config.yaml` and `tiny.yaml`.

Nothing here asks the planner: these are the expectations that it is held to.
"""

from collections.abc import Iterable

TARGET, DRAFT_MODEL = "model 64", "model 32"
PYTHON, HUMANEVAL, CHAT = "text python", "text humaneval", "text chat"
CHAT_VALIDATION, WRITTEN = "text chat-validation", "text written"
SALIENCY, REFERENCE, CALIBRATION = "saliency", "reference", "calibration"
PRUNER, NO_LM_LOSS, LM_LOSS_ONLY = "pruner 1/1/1", "pruner 0/1/1", "pruner 1/0/0"
NGRAM, TEACHER, DISTILLED = "ngram", "teacher", "draft"
COSTS, GRID_COSTS = "costs 8x3", "costs 7x2"
SWEEPS = ("sweep 64", "sweep 96")
GRIDS = ("grid trees", "grid lengths")
BENCHMARK, BENCHMARK_TABLE = "benchmark", "benchmark table"

SCORER_OF = {
    **dict.fromkeys(("baseline", "A6", "A7", "A9", "B1", "B2", "C1", "C2", "C3", "P1"), PRUNER),
    "A3b": NO_LM_LOSS,
    "A5": LM_LOSS_ONLY,
}
"""Pruner of each SDTP experiment that has a learned one."""
OVER_RANKS = ("GB", "G0")
NOT_LEARNED = ("A1", "A1s", "A2", "M2")
HYBRID = ("F2", "F2b", "F2c", "F3", "F4", "K3", "D1", "E1", "E2", "E3", "O1")
"""Decoding experiments by drafter; K2 is F3 and K4 is F1, so these have no job of their own."""
DISTILLED_ALONE = ("N1", "N2", "N3", "N4")
DECODING = ("F1", *HYBRID, *DISTILLED_ALONE, "NG", "PL", "N0")


def evaluate(*names: str) -> set[str]:
    """Jobs of SDTP experiments."""
    return {f"pipeline {name}" if name in OVER_RANKS else f"evaluate {name}" for name in names}


def decode(*names: str) -> set[str]:
    """Jobs of decoding experiments."""
    return {f"decode {name}" for name in names}


EVALUATIONS = evaluate(*SCORER_OF, *OVER_RANKS, *NOT_LEARNED)
DECODINGS = decode(*DECODING)
RENDERING = frozenset({"collect", "tables", "figures", "numbers", "section", "page", "archive"})
BEYOND_THE_PAPER = frozenset({"page", "archive", "written", BENCHMARK, BENCHMARK_TABLE})
"""Jobs that `paper/ablation.tex` does not need."""


def _reads() -> dict[str, set[str]]:
    prompts = {HUMANEVAL, PYTHON, CHAT}
    hybrid = {NGRAM, DISTILLED}
    validation = {TARGET, PYTHON, CHAT_VALIDATION}
    found: dict[str, set[str]] = {
        **{name: set() for name in (TARGET, DRAFT_MODEL, PYTHON, HUMANEVAL, CHAT, CHAT_VALIDATION, WRITTEN)},
        SALIENCY: {TARGET, PYTHON},
        REFERENCE: {TARGET, PYTHON},
        **{name: {TARGET, SALIENCY} for name in (PRUNER, NO_LM_LOSS, LM_LOSS_ONLY)},
        CALIBRATION: {TARGET, PYTHON, PRUNER},
        **{job: {TARGET, PYTHON, REFERENCE} for job in EVALUATIONS},
        **{job: {TARGET, PYTHON, PRUNER} for job in SWEEPS},
        NGRAM: {TARGET, PYTHON, WRITTEN},
        TEACHER: {TARGET, PYTHON},
        DISTILLED: {TARGET, TEACHER},
        "written": {TARGET, TEACHER},
        COSTS: validation | hybrid,
        GRID_COSTS: validation | hybrid,
        **{job: {TARGET} | prompts for job in DECODINGS},
        **{job: {TARGET, GRID_COSTS} | hybrid | prompts for job in GRIDS},
        BENCHMARK: {TARGET, DRAFT_MODEL, COSTS} | hybrid | prompts,
        BENCHMARK_TABLE: {BENCHMARK},
    }
    for name, scorer in SCORER_OF.items():
        found[f"evaluate {name}"].add(scorer)
    for job in evaluate(*OVER_RANKS):
        found[job].add(PRUNER)
    found["evaluate P1"].add(CALIBRATION)
    found["evaluate A1s"].add(SALIENCY)
    for name in HYBRID:
        found[f"decode {name}"] |= hybrid
    for name in DISTILLED_ALONE:
        found[f"decode {name}"].add(DISTILLED)
    found["decode O1"].add(COSTS)
    found["decode NG"].add(NGRAM)
    found["decode N0"].add(DRAFT_MODEL)
    measured = {*EVALUATIONS, *SWEEPS, *DECODINGS, *GRIDS}
    found["collect"] = measured
    for job in ("tables", "figures", "numbers", "page", "archive"):
        found[job] = {"collect"}
    found["section"] = {"collect", "tables", "figures", "numbers"}
    return found


READS = _reads()
"""What each job reads of the others."""


def stale(changed: Iterable[str]) -> frozenset[str]:
    """Jobs that must run when those of `changed` are new: these, and all that read what they make."""
    found = set(changed)
    while more := {job for job, needed in READS.items() if job not in found and needed & found}:
        found |= more
    return frozenset(found)
