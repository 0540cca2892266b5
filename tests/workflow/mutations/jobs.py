"""The blocks and results of the tiny study and what each reads, by hand from `config.yaml` and `tiny.yaml`.

Nothing here asks the planner: these are the expectations that it is held to.
"""

from collections.abc import Iterable, Sequence

TARGET, DRAFT_MODEL = "model 64", "model 32"
PYTHON, HUMANEVAL, CHAT = "text python", "text humaneval", "text chat"
CHAT_VALIDATION, WRITTEN = "text chat-validation", "text written"
SALIENCY, CALIBRATION = "saliency", "calibration"
PRUNER, NO_LM_LOSS, LM_LOSS_ONLY = "pruner 1/1/1", "pruner 0/1/1", "pruner 1/0/0"
AGAIN = " seed 1"
"""What the names of a second training and of what is measured with it have besides."""
NGRAM, TEACHER, DISTILLED = "ngram", "teacher", "draft"
TARGET_COSTS = "target_costs"
SWEEPS = ("sweep 64", "sweep 96")
GRIDS = ("grid trees", "grid lengths")
BENCHMARK, BENCHMARK_TABLE = "benchmark", "benchmark table"

SCORER_OF = {
    **dict.fromkeys(("baseline", "A6", "A7", "A9", "B1", "B1m", "B2", "C1", "C2", "C3", "P1", "LD"), PRUNER),
    "A3b": NO_LM_LOSS,
    "A5": LM_LOSS_ONLY,
}
"""Pruner of each SDTP experiment that has a learned one."""
TRAINED_TWICE = ("baseline", "A5")
"""The baseline, and what is confirmatory and trained in another way."""
SCORERS = (PRUNER, NO_LM_LOSS, LM_LOSS_ONLY, PRUNER + AGAIN, LM_LOSS_ONLY + AGAIN)
OVER_RANKS = ("GB", "G0")
NOT_LEARNED = ("A1", "A1s", "A2", "M2", "AL", "AW", "OR")
SINGLE_PROCESS = (*SCORER_OF, *NOT_LEARNED)
PRUNING = (*SINGLE_PROCESS, *OVER_RANKS)
WHOLE = ("baseline", "A2", "A5", "A7", "B1m")
"""Those with the whole budget: the baseline, and what is confirmatory."""
EXPLORATORY = tuple(name for name in PRUNING if name not in WHOLE)
TIMED = tuple(name for name in PRUNING if name not in ("A1s", "A2", "M2", "LD", "OR", "A3b", "A5"))
"""Those that differ from the baseline in more than cheap scores, and the baseline."""
CRASHES = "B2"
"""Experiment whose first document crashes: it lacks nothing, however many are asked for."""
HYBRID = ("F2", "F2b", "F2c", "F3", "F4", "K3", "D1", "E1", "E2", "E3", "O1")
"""Decoding experiments by drafter; K2 is F3 and K4 is F1, so these have no blocks of their own."""
DISTILLED_ALONE = ("N1", "N2", "N3", "N4")
DRAFTER_OF = {
    **dict.fromkeys(HYBRID, "hybrid"),
    **dict.fromkeys(DISTILLED_ALONE, "distilled"),
    "NG": "ngram",
    "PL": "prompt_lookup",
    "N0": "neural",
}
"""Kind of drafter of each decoding experiment that has one."""
DRAFTING = tuple(DRAFTER_OF)
DECODING = ("F1", *DRAFTING)
TIMED_ON_MORE = ("F1", "F2", "F2b", "F4", "K3")
"""What is confirmatory (F2, F4, K3) or compared with that; F3 is too, but decodes two prompts of a kind."""

DRAWS_ON = {
    "hybrid": ("ngram", "distilled"),
    **{kind: (kind,) for kind in ("ngram", "distilled", "prompt_lookup", "neural")},
}
"""Kinds of drafters that a drafter draws on, each calibrated once."""
MADE_OF = {"ngram": NGRAM, "distilled": DISTILLED, "neural": DRAFT_MODEL}
"""Artefact of each kind that has one."""
ACCEPTANCE = {kind: f"acceptance {kind}" for kind in ("ngram", "distilled", "prompt_lookup", "neural")}
"""How often proposals of each kind of drafter turn out right."""
COSTS = {kind: f"costs {kind}" for kind in DRAWS_ON}
"""Costs of each drafter."""

QUALITY, RETRIEVAL, PREFILL = "quality", "retrieval", "prefill"
CODE, DOCUMENTATION, CHATTING = "code", "documentation", "chat"
PROMPTS = {CODE: HUMANEVAL, DOCUMENTATION: PYTHON, CHATTING: CHAT}
"""Text that the prompts of each kind are of; of three, the first two are timed."""


def evaluate(
    *names: str,
    measures: Iterable[str] = (QUALITY, RETRIEVAL, PREFILL),
    spans: Sequence[str] | None = None,
) -> set[str]:
    """Blocks of SDTP experiments under each measure: so few items are one block.

    Args:
        names: The experiments.
        measures: What is measured; over ranks there is no retrieval, and of some no time.
        spans: Items of the blocks; those that are wanted if left out.
    """
    blocks = set()
    for name in names:
        whole = name in WHOLE
        wanted = {QUALITY: "0-6" if whole else "0-4", RETRIEVAL: "0-4" if whole else "0-3", PREFILL: "0-2"}
        if name in OVER_RANKS:
            del wanted[RETRIEVAL]
        if name in PRUNING and name not in TIMED:
            del wanted[PREFILL]
        kind = "pipeline" if name in OVER_RANKS else "evaluate"
        for measure in wanted.keys() & {*measures}:
            again = ("", AGAIN) if name in TRAINED_TWICE and measure != PREFILL else ("",)
            for span in spans or [wanted[measure]]:
                blocks |= {f"{kind} {name} {measure}{seed} {span}" for seed in again}
    return blocks


def decode(*names: str, kinds: Iterable[str] = tuple(PROMPTS), span: str = "0-2") -> set[str]:
    """Blocks of timed prompts of decoding experiments."""
    return {f"decode {name} {kind} {span}" for name in names for kind in kinds}


def replay(*names: str, kinds: Iterable[str] = tuple(PROMPTS), span: str = "0-3") -> set[str]:
    """Blocks of replayed prompts of those that draft."""
    return {f"replay {name} {kind} {span}" for name in names if name in DRAFTING for kind in kinds}


def decode_and_replay(*names: str, kinds: Iterable[str] = tuple(PROMPTS)) -> set[str]:
    """All blocks of decoding experiments."""
    return decode(*names, kinds=kinds) | replay(*names, kinds=kinds)


def join(*names: str) -> set[str]:
    """Records of experiments, joined from their blocks."""
    return {f"join {name}" for name in names}


EVALUATIONS = evaluate(*PRUNING)
DECODINGS = decode(*DECODING)
REPLAYS = replay(*DRAFTING)
CALIBRATIONS = frozenset({TARGET_COSTS, *ACCEPTANCE.values(), *COSTS.values()})
RENDERING = frozenset({"collect", "tables", "figures", "numbers", "section", "page", "archive"})
BEYOND_THE_PAPER = frozenset({"page", "archive", "written", BENCHMARK, BENCHMARK_TABLE})
"""What `paper/ablation.tex` does not need."""


def _reads() -> dict[str, set[str]]:
    prompts = {HUMANEVAL, PYTHON, CHAT}
    validation = {TARGET, PYTHON, CHAT_VALIDATION}
    sources = {kind: {MADE_OF[kind]} if kind in MADE_OF else set() for kind in ACCEPTANCE}
    drafts = {
        drafter: set().union(*({ACCEPTANCE[kind], *sources[kind]} for kind in kinds))
        for drafter, kinds in DRAWS_ON.items()
    }
    found: dict[str, set[str]] = {
        **{name: set() for name in (TARGET, DRAFT_MODEL, PYTHON, HUMANEVAL, CHAT, CHAT_VALIDATION, WRITTEN)},
        SALIENCY: {TARGET, PYTHON},
        **{name: {TARGET, SALIENCY} for name in SCORERS},
        CALIBRATION: {TARGET, PYTHON, PRUNER},
        **{block: {TARGET, PYTHON} for block in EVALUATIONS},
        **{job: {TARGET, PYTHON, PRUNER} for job in SWEEPS},
        NGRAM: {TARGET, PYTHON, WRITTEN},
        TEACHER: {TARGET, PYTHON},
        DISTILLED: {TARGET, TEACHER},
        "written": {TARGET, TEACHER},
        TARGET_COSTS: validation,
        **{ACCEPTANCE[kind]: validation | sources[kind] for kind in ACCEPTANCE},
        **{COSTS[drafter]: validation | {TARGET_COSTS} | drafts[drafter] for drafter in COSTS},
        **{
            block: {TARGET, PROMPTS[kind]} | drafts.get(DRAFTER_OF.get(name, ""), set())
            for name in DECODING
            for kind in PROMPTS
            for block in decode_and_replay(name, kinds=[kind])
        },
        **{job: {TARGET, COSTS["hybrid"]} | drafts["hybrid"] | prompts for job in GRIDS},
        BENCHMARK: {TARGET, COSTS["hybrid"]}.union(prompts, *drafts.values()),
        BENCHMARK_TABLE: {BENCHMARK},
    }

    def also(blocks: Iterable[str], *artefacts: str) -> None:
        for block in blocks:
            found[block] |= {*artefacts}

    for name, scorer in SCORER_OF.items():
        for block in evaluate(name):
            found[block].add(scorer + AGAIN * (AGAIN in block))
    also(evaluate(*OVER_RANKS), PRUNER)
    also(evaluate("P1"), CALIBRATION)
    also(evaluate("A1s"), SALIENCY)
    also(decode_and_replay("O1"), COSTS["hybrid"])
    found |= {f"join {name}": evaluate(name) for name in PRUNING}
    found |= {f"join {name}": decode_and_replay(name) for name in DECODING}
    for name, drafter in DRAFTER_OF.items():
        also(join(name), COSTS[drafter])
    found["collect"] = {*join(*PRUNING, *DECODING), *SWEEPS, *GRIDS}
    for job in ("tables", "figures", "numbers", "page", "archive"):
        found[job] = {"collect"}
    found["section"] = {"collect", "tables", "figures", "numbers"}
    return found


READS = _reads()
"""What each reads of the others."""


def stale(changed: Iterable[str]) -> frozenset[str]:
    """What must be made when `changed` is new: that, and all that is made of it."""
    found = set(changed)
    while more := {job for job, needed in READS.items() if job not in found and needed & found}:
        found |= more
    return frozenset(found)
