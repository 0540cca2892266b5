"""Mutations of the configuration that make something be measured again."""

from collections.abc import Callable, Iterable
from typing import Any

from tests.workflow.mutations.jobs import (
    ACCEPTANCE,
    AGAIN,
    BENCHMARK,
    BENCHMARK_TABLE,
    CALIBRATION,
    CALIBRATIONS,
    CHAT,
    CODE,
    COSTS,
    CRASHES,
    DECODING,
    DECODINGS,
    DISTILLED,
    DOCUMENTATION,
    DRAFT_MODEL,
    DRAFTING,
    EVALUATIONS,
    EXPLORATORY,
    GRIDS,
    HUMANEVAL,
    HYBRID,
    NGRAM,
    PREFILL,
    PRUNER,
    PRUNING,
    PYTHON,
    QUALITY,
    RENDERING,
    REPLAYS,
    RETRIEVAL,
    SALIENCY,
    SCORERS,
    SINGLE_PROCESS,
    SWEEPS,
    TARGET,
    TARGET_COSTS,
    TEACHER,
    TIMED,
    TIMED_ON_MORE,
    TRAINED_TWICE,
    WHOLE,
    decode,
    decode_and_replay,
    evaluate,
    join,
    replay,
    stale,
)
from tests.workflow.mutations.study import Mutation, Study


def setting(key: str, value: Any, changed: Iterable[str], note: str = "") -> Mutation:
    """A key that gets another value, and the blocks and results whose specs it enters."""
    name = f"{key}: {value}" + (f" ({note})" if note else "")
    return Mutation(name, lambda study: study.set(key, value), stale(changed))


def scoring(name: str, importance: str) -> Mutation:
    """Other cheap scores for an SDTP ablation, which is not timed then."""
    expected = evaluate(name, measures=[QUALITY, RETRIEVAL])
    return setting(f"sdtp.ablations.{name}.change.importance", importance, expected)


def arm(name: str, key: str, value: Any, *more: str) -> Mutation:
    """A value of one SDTP ablation."""
    return setting(f"sdtp.ablations.{name}.change.{key}", value, {*evaluate(name), *more})


def drafting(name: str, key: str, value: Any, *more: str) -> Mutation:
    """A value of one decoding ablation; the benchmark measures all of them."""
    expected = {*decode_and_replay(name), BENCHMARK, "collect", *more}
    return setting(f"dynatree.ablations.{name}.{key}", value, expected)


def _fewer_prompts(name: str, *more: str) -> Mutation:
    """A decoding ablation with a smaller budget: its record is joined anew, and nothing is measured."""
    expected = {*join(name), "collect", *more}
    return setting(f"dynatree.ablations.{name}.budget", {"prompts": 1}, expected)


def _and_compound(name: str, group: str, value: dict[str, Any]) -> Mutation:
    def edit(study: Study) -> None:
        study.set(f"dynatree.ablations.{name}.compound", True)
        study.set(f"dynatree.ablations.{name}.change.{group}", value)

    expected = stale({*decode_and_replay(name), BENCHMARK})
    return Mutation(f"dynatree.ablations.{name}.change.{group}: {value}", edit, expected)


ARMS = [
    *(scoring(name, "recent") for name in ("A1", "A1s", "A2", "M2", "LD", "AL", "AW", "OR")),
    setting("sdtp.ablations.A3b.change.losses.lm", 0.5, {*evaluate("A3b"), "pruner 0.5/1/1"}),
    setting(
        "sdtp.ablations.A5.change.losses.ranking",
        0.5,
        {*evaluate("A5"), "pruner 1/0/0.5", f"pruner 1/0/0.5{AGAIN}"},
    ),
    arm("A6", "preserve.head", 1),
    arm("A7", "schedule.keep_ratio", 0.55),
    arm("A9", "schedule.keep_ratio", 0.85),
    arm("B1", "schedule.layers", [3]),
    arm("B1m", "schedule.layers", [3]),
    # Layer 4 has no scorer of the baseline's: the arm gets saliency and a pruner of its own.
    Mutation(
        "sdtp.ablations.B1.change.schedule.layers: [4]",
        lambda study: study.set("sdtp.ablations.B1.change.schedule.layers", [4]),
        frozenset({SALIENCY, PRUNER, *evaluate("B1"), *join("B1")}) | RENDERING,
    ),
    arm("B2", "positions", "packed"),
    arm("GB", "pipeline.ranks", 3, *evaluate("G0")),
    arm("G0", "pipeline.ranks", 3),
    Mutation(
        "sdtp.ablations.P1.change.selection: threshold",
        lambda study: study.set("sdtp.ablations.P1.change.selection", "threshold"),
        stale({CALIBRATION}),
    ),
    # K4, which is F1, keeps all prompts, so that the benchmark has an arm of either.
    _fewer_prompts("F1", BENCHMARK),
    drafting("F2", "change.shape.depth", 5),
    drafting("F2b", "change.shape.depth", 8),
    drafting("F2c", "change.shape.branching", 3),
    _fewer_prompts("F3", BENCHMARK),
    # What starts from F4 and keeps its threshold; K2 and O1 have none, K4 no drafter.
    drafting("F4", "change.pruning", {"tau": 0.1}, *decode_and_replay("K3", "D1", "PL", "NG", "N0")),
    _fewer_prompts("K2", BENCHMARK),
    drafting("K3", "change.shape.branching", 3),
    drafting("D1", "change.shape.depth", 2),
    drafting("D1", "from", "F3"),
    drafting("E1", "change.shape.depth", 4, *decode_and_replay("E2", "E3")),
    drafting("E2", "change.adaptation.max_depth", 9, *decode_and_replay("E3")),
    drafting("E3", "change.adaptation.history.smoothing", 0.4),
    drafting("O1", "change.shape.depth", 6),
    drafting("N1", "change.shape.depth", 5),
    _fewer_prompts("N2", BENCHMARK),
    drafting("N4", "change.shape.branching", 3),
    _and_compound("PL", "pruning", {"tau": 0.1}),
    _and_compound("NG", "pruning", {"tau": 0.1}),
    _and_compound("N0", "pruning", {"tau": 0.1}),
    drafting("N3", "change.pruning", {"tau": 0.1}, *decode_and_replay("N4")),
]
"""The value of each ablation; where others start from it, theirs too."""


def _pack_what_drops(study: Study) -> None:
    """Renumber survivors, but for the arms in which dropped tokens stay: there nothing can be renumbered."""
    study.set("sdtp.baseline.positions", "packed")
    for name in ("C1", "C3"):
        study.set(f"sdtp.ablations.{name}.change.positions", "original")
        study.set(f"sdtp.ablations.{name}.compound", True)


_WITH_MSE = {PRUNER, PRUNER + AGAIN, "pruner 0/1/1"}
_WITHOUT_OWN_RATIO = set(EVALUATIONS) - evaluate("A7", "A9")
_OWN_DEPTH = {"F1", "F2", "F2b", "D1", "E1", "E2", "E3", "O1", "N1"}
_OWN_TAU = {"F1", "F2", "F2b", "F2c", "F3", "O1", "N1", "N2"}

BASELINES = [
    setting("sdtp.baseline.schedule.keep_ratio", 0.6, _WITHOUT_OWN_RATIO | {CALIBRATION}),
    setting("sdtp.baseline.schedule.layers", [2, 4, 5], {SALIENCY, *SWEEPS} | EVALUATIONS - evaluate("B1")),
    # Scorers are trained with the baseline's protection; A6 has its own, and its scorer is new all the same.
    setting("sdtp.baseline.preserve.head", 3, {*SCORERS} | EVALUATIONS),
    Mutation(
        "sdtp.baseline.positions: packed", _pack_what_drops, stale(EVALUATIONS - evaluate("B2", "C1", "C3"))
    ),
    setting("sdtp.baseline.saliency.loss", "window", {SALIENCY, *evaluate("A1")}),
    Mutation(
        "sdtp.baseline.losses.mse: 0.5",
        lambda study: study.set("sdtp.baseline.losses.mse", 0.5),
        (stale(_WITH_MSE) - _WITH_MSE) | {name.replace("/1/1", "/0.5/1") for name in _WITH_MSE},
    ),
    setting(
        "dynatree.baseline.shape.depth",
        6,
        decode_and_replay(*{*DECODING} - _OWN_DEPTH) | {"grid lengths", BENCHMARK},
    ),
    setting(
        "dynatree.baseline.pruning.tau",
        0.1,
        decode_and_replay(*{*DECODING} - _OWN_TAU) | {"grid lengths", BENCHMARK},
    ),
    # O1's trees have the calibration's cap; the lengths replay the baseline's tree.
    setting(
        "dynatree.baseline.pruning.max_nodes",
        128,
        decode_and_replay(*{*DRAFTING} - {"O1"}) | {"grid lengths", BENCHMARK},
    ),
    # F4 becomes what NG is already, whose drafter has its costs.
    setting(
        "dynatree.baseline.drafter",
        "ngram",
        decode_and_replay(*{*HYBRID} - {"F4"}) | {*GRIDS, BENCHMARK},
    ),
]
"""Component groups of the baselines, which every ablation starts from."""

_ASKED = {*EXPLORATORY} & {*SINGLE_PROCESS}
"""Exploratory experiments whose retrieval is measured."""


def _more_documents_in_smaller_blocks(study: Study) -> None:
    study.set("panel.documents", 4)
    study.set("sdtp.evaluation.documents", 10)


def _more_documents_and_as_many_again(study: Study) -> None:
    study.set("sdtp.evaluation.documents", 7)
    study.planned()
    study.set("sdtp.evaluation.documents", 6)


def _fewer_timed(study: Study) -> None:
    study.set("dynatree.decoding.exploratory", 1)
    study.set("dynatree.decoding.timed", 1)


def _timed_one_by_one(study: Study) -> None:
    study.set("panel.documents", 1)
    study.set("dynatree.prompts.code.count", 5)


COUNTS = [
    setting(
        "sdtp.evaluation.documents",
        7,
        evaluate(*WHOLE, measures=[QUALITY], spans=["6-7"]) | join(*WHOLE),
        "one more",
    ),
    setting("sdtp.evaluation.documents", 5, join(*WHOLE), "one less"),
    setting(
        "sdtp.evaluation.documents",
        12,
        evaluate(*WHOLE, measures=[QUALITY], spans=["6-10", "10-12"]) | join(*WHOLE),
        "over the end of a block",
    ),
    Mutation(
        "sdtp.evaluation.documents: 10, in smaller blocks",
        _more_documents_in_smaller_blocks,
        stale(evaluate(*WHOLE, measures=[QUALITY], spans=["6-8", "8-10"]) | join(*WHOLE)),
    ),
    Mutation(
        "sdtp.evaluation.documents: one more, and as many as before again", _more_documents_and_as_many_again
    ),
    setting(
        "sdtp.evaluation.timing.documents",
        3,
        evaluate(*{*TIMED} - {CRASHES}, measures=[PREFILL], spans=["2-3"]) | join(*TIMED),
        "one more",
    ),
    setting("sdtp.evaluation.timing.documents", 1, join(*TIMED), "one less"),
    setting(
        "sdtp.evaluation.retrieval.count",
        5,
        evaluate(*WHOLE, measures=[RETRIEVAL], spans=["4-5"]) | join(*WHOLE),
        "one more",
    ),
    setting("sdtp.evaluation.retrieval.count", 3, join(*WHOLE), "one less"),
    setting(
        "sdtp.evaluation.exploratory.documents",
        5,
        evaluate(*{*EXPLORATORY} - {CRASHES}, measures=[QUALITY], spans=["4-5"]) | join(*EXPLORATORY),
        "one more",
    ),
    setting(
        "sdtp.evaluation.exploratory.prompts",
        4,
        evaluate(*_ASKED - {CRASHES}, measures=[RETRIEVAL], spans=["3-4"]) | join(*_ASKED),
        "one more",
    ),
    setting(
        "sdtp.evaluation.exploratory",
        None,
        evaluate(*{*EXPLORATORY} - {CRASHES}, measures=[QUALITY], spans=["4-6"])
        | evaluate(*_ASKED - {CRASHES}, measures=[RETRIEVAL], spans=["3-4"])
        | join(*EXPLORATORY),
    ),
    # The benchmark says itself how many prompts it has. F1 drafts nothing, so that nothing of it is replayed.
    setting(
        "dynatree.prompts.code.count",
        4,
        replay(*DRAFTING, kinds=[CODE], span="3-4") | join(*DRAFTING) | {*GRIDS},
        "one more",
    ),
    setting("dynatree.prompts.code.count", 2, join(*DRAFTING) | {*GRIDS}, "one less"),
    Mutation(
        "dynatree.prompts.code.count: 5, one by one",
        _timed_one_by_one,
        stale(
            replay(*DRAFTING, kinds=[CODE], span="3-4")
            | replay(*DRAFTING, kinds=[CODE], span="4-5")
            | join(*DRAFTING)
            | {*GRIDS}
        ),
    ),
    # K4 is F1 with the budget of an exploratory experiment: its record is the one that F1 had.
    setting(
        "dynatree.decoding.timed", 3, decode(*TIMED_ON_MORE, span="2-3") | join(*TIMED_ON_MORE), "one more"
    ),
    Mutation("dynatree.decoding.timed: 1 (one less)", _fewer_timed, stale(join(*DECODING))),
    # K4 and K2, which is F3, get records of their own.
    setting(
        "dynatree.decoding.exploratory",
        1,
        join(*{*DECODING} - {*TIMED_ON_MORE, "F3"}, "K2", "K4"),
        "one less",
    ),
    # Everything is timed then that is not exploratory, and nothing is replayed.
    setting("dynatree.decoding.timed", None, decode(*TIMED_ON_MORE, span="2-3") | join(*DECODING)),
]
"""How many documents and prompts: what is new of them is measured, what is there stays."""

BUDGETS = [
    setting("seed", 1, {PYTHON, HUMANEVAL, CHAT, "text written", "text chat-validation"}),
    setting("models.tiny_llama.seed", 1, {TARGET}),
    setting("models.tiny_draft.seed", 1, {DRAFT_MODEL}),
    setting("texts.python.window", 5000, {PYTHON}),
    setting("texts.chat.window", 20000, {CHAT}),
    setting("sdtp.saliency.documents", 5, {SALIENCY}),
    setting("sdtp.saliency.retrieval.count", 5, {SALIENCY}),
    setting("sdtp.saliency.retrieval.kinds", ["pairs", "definition"], {SALIENCY}),
    setting("sdtp.saliency.retrieval", None, {SALIENCY}),
    setting("sdtp.saliency.heldout_documents", 4, {SALIENCY}),
    setting("sdtp.training.epochs", 2, SCORERS),
    setting("sdtp.training.width", 24, SCORERS),
    setting("sdtp.training.distance", True, SCORERS),
    setting("sdtp.training.learning_rate", 0.003, SCORERS),
    setting("sdtp.evaluation.prompt_tokens", 72, EVALUATIONS | {CALIBRATION}),
    setting("sdtp.evaluation.continuation_tokens", 9, evaluate(*PRUNING, measures=[QUALITY, PREFILL])),
    setting("sdtp.evaluation.timing.repeats", 3, evaluate(*PRUNING, measures=[PREFILL])),
    setting("sdtp.evaluation.retrieval.tokens", 330, evaluate(*PRUNING, measures=[RETRIEVAL])),
    setting("sdtp.evaluation.retrieval.depths", [0.6], evaluate(*PRUNING, measures=[RETRIEVAL])),
    setting("sdtp.evaluation.retrieval.kinds", ["pairs"], evaluate(*PRUNING, measures=[RETRIEVAL])),
    setting("sdtp.evaluation.calibration_documents", 3, {CALIBRATION}),
    setting("sdtp.evaluation.compute.threads", 2, EVALUATIONS | {CALIBRATION, *SWEEPS}),
    setting("sdtp.sweep.repeats", 3, SWEEPS),
    setting("sdtp.sweep.lengths", [64, 96, 128], {"sweep 128", "collect"}, "one more"),
    setting("dynatree.decoding.new_tokens", 14, DECODINGS | REPLAYS),
    setting("dynatree.decoding.repeats", 3, DECODINGS),
    setting("dynatree.decoding.warmup", 2, DECODINGS | {BENCHMARK}),
    setting("dynatree.decoding.compute.threads", 2, DECODINGS | REPLAYS | CALIBRATIONS),
    setting(
        "dynatree.prompts.documentation.tokens",
        40,
        decode_and_replay(*DECODING, kinds=[DOCUMENTATION]) | {*GRIDS, BENCHMARK},
    ),
    # Costs grow the trees of O1; all other experiments are priced by them.
    setting("dynatree.calibration.repeats", 3, {TARGET_COSTS}),
    setting("dynatree.calibration.prefixes", [16, 24], {TARGET_COSTS}),
    setting("dynatree.calibration.most_rows", 17, {TARGET_COSTS}),
    setting("dynatree.calibration.timed", 2, COSTS.values()),
    setting("dynatree.calibration.pruning.tau", 0.1, COSTS.values()),
    # Acceptance enters the probabilities of all that drafts.
    setting("dynatree.calibration.max_nodes", 10, {*ACCEPTANCE.values(), *COSTS.values()}),
    setting("dynatree.calibration.shape.depth", 7, {*ACCEPTANCE.values(), *COSTS.values()}),
    setting("dynatree.calibration.new_tokens", 14, {*ACCEPTANCE.values(), *COSTS.values()}),
    setting("dynatree.calibration.prompts.chat.count", 1, CALIBRATIONS),
    setting("dynatree.grids.taus", [0.05, 0.3], {"grid trees"}),
    setting("dynatree.grids.lengths", [8, 12], {"grid lengths"}),
    setting("dynatree.benchmark.repeats", 2, {BENCHMARK}),
    setting("dynatree.benchmark.transformers.HF-lookup.prompt_lookup_num_tokens", 4, {BENCHMARK}),
    setting("dynatree.benchmark.best_of", ["F4"], {BENCHMARK_TABLE}),
]
"""What experiments share: seeds, models, texts, budgets."""

_HYBRID_USERS = decode_and_replay(*HYBRID) | {COSTS["hybrid"], BENCHMARK}

DRAFTERS = [
    setting("dynatree.drafters.ngram.order", 3, {NGRAM}),
    setting("dynatree.drafters.ngram.texts", ["python"], {NGRAM}),
    setting("dynatree.drafters.ngram.context_weight", 32, {ACCEPTANCE["ngram"]}),
    setting("dynatree.drafters.lookup.probability", 0.8, {ACCEPTANCE["prompt_lookup"]}),
    setting("dynatree.drafters.distilled.teacher.texts", 11, {TEACHER}),
    setting("dynatree.drafters.distilled.distil.epochs", 2, {DISTILLED}),
    setting("dynatree.drafters.hybrid.share", 0.6, _HYBRID_USERS),
    setting("dynatree.drafters.neural.model", "tiny_llama", {ACCEPTANCE["neural"]}),
]
"""What drafts are made of."""


_THIRD = {
    *(name.removesuffix(AGAIN) + " seed 2" for name in SCORERS if name.endswith(AGAIN)),
    *(block.replace(AGAIN, " seed 2") for block in evaluate(*TRAINED_TWICE) if AGAIN in block),
}
"""Trainings of a third seed, and what is measured with them; the first seed alone is timed."""


def _family(*names: str) -> Callable[[Study], None]:
    """Other confirmatory experiments of SDTP."""
    return lambda study: study.set("paper.confirmatory.sdtp", list(names))


FAMILY = [
    Mutation(
        "an experiment enters the family",
        _family("A2", "A5", "A7", "B1m", "A9"),
        stale(
            evaluate("A9", measures=[QUALITY], spans=["4-6"])
            | evaluate("A9", measures=[RETRIEVAL], spans=["3-4"])
            | join("A9")
        ),
    ),
    Mutation(
        "an experiment that trains in another way enters the family",
        _family("A2", "A5", "A7", "B1m", "A3b"),
        stale(
            evaluate("A3b", measures=[QUALITY], spans=["4-6", "seed 1 0-6"])
            | evaluate("A3b", measures=[RETRIEVAL], spans=["3-4", "seed 1 0-4"])
            | {f"pruner 0/1/1{AGAIN}"}
            | join("A3b")
        ),
    ),
    Mutation("experiments leave the family", _family("A2", "B1m"), stale(join("A5", "A7"))),
    Mutation(
        "a decoding experiment enters the family, and more prompts are timed",
        lambda study: (
            study.set("paper.confirmatory.dynatree", ["F2", "F4", "K3", "O1"]),
            study.set("dynatree.decoding.timed", 3),
        ),
        # O1 is above F4 and E3.
        stale(decode(*TIMED_ON_MORE, "O1", "E3", span="2-3") | join(*TIMED_ON_MORE, "O1", "E3")),
    ),
]
"""Who is confirmatory, which decides budgets."""

ROWS = [
    Mutation(
        "sdtp.seeds: one more",
        lambda study: study.set("sdtp.seeds", [0, 1, 2]),
        stale(join(*TRAINED_TWICE)) | _THIRD,
    ),
    Mutation(
        "a new ablation",
        lambda study: study.settings(
            lambda config: (
                config["sdtp"]["only"].append("X6"),
                config["sdtp"]["ablations"].update(
                    X6={"title": "X", "section": "ratio", "change": {"schedule": {"keep_ratio": 0.6}}}
                ),
            )
        ),
        stale({*evaluate("X6"), *join("X6"), "collect"}),
    ),
    Mutation(
        "an ablation switched on",
        lambda study: study.settings(lambda config: config["sdtp"]["only"].append("A8")),
        stale({*evaluate("A8"), *join("A8"), "collect"}),
    ),
]
"""Experiments that were not there."""

CONFIGURATION = [*ARMS, *BASELINES, *COUNTS, *BUDGETS, *DRAFTERS, *FAMILY, *ROWS]
