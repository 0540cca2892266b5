"""What templates may say: filters that print values, marks and constants."""

from collections.abc import Callable
from typing import Any

from ablations.evidence.corrected import FEW
from ablations.evidence.decisions import Decision
from ablations.paper import formatting, wording
from ablations.paper.quantities.effects import these_trainings
from ablations.paper.results.sdtp import RetrievalHits

_LEVELS = {
    "same": r"$\approx$",
    "up": r"$\uparrow$",
    "up_strong": r"$\uparrow\uparrow$",
    "down": r"$\downarrow$",
    "down_strong": r"$\downarrow\downarrow$",
}
_ORDERINGS = {"above": "S~$>$", "below": "S~$<$", "about": r"S~$\approx$", "less_traffic": "B~$<$"}
_MEASURES = {"text": "T", "retrieval": "R", "speed": "S"}
_OUTCOMES = {
    "as_expected": "yes",
    "smaller": "smaller",
    "smaller_if_any": "smaller if any",
    "opposite": "opposite",
    "no_difference": "none",
    "different": "different",
    "not_resolved": "open",
}


def predicted(part: Decision) -> str:
    """A prediction in symbols: T for text, R for retrieval, S for speed, B for bytes sent."""
    if part.aspect in _ORDERINGS:
        return f"{_ORDERINGS[part.aspect]}~{wording.tex(part.against)}"
    if part.aspect in _MEASURES:
        return f"{_MEASURES[part.aspect]}~{_LEVELS[part.level]}"
    return {"exact": "identical tokens", "crash": "crash"}[part.aspect]


def found_of(hits: RetrievalHits) -> str:
    """Facts found of those hidden, in parentheses those that the unpruned model finds."""
    return f"{hits.hits}/{hits.prompts} ({hits.reference_hits})"


def outcome(part: Decision) -> str:
    """What came of a prediction: a word, in parentheses where it was counted; nothing of exploratory ones."""
    if part.kind == "exploratory":
        return ""
    word = formatting.ABSENT if part.outcome is None else _OUTCOMES[part.outcome]
    return f"({word})" if part.kind == "counted" else word


FILTERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        formatting.average,
        formatting.average_interval,
        formatting.bare_factor,
        formatting.count,
        formatting.factor,
        formatting.factor_interval,
        formatting.millions,
        formatting.nats,
        formatting.nats_interval,
        formatting.operations,
        formatting.percent,
        formatting.percent_change,
        formatting.percent_change_interval,
        formatting.percent_difference,
        formatting.percent_interval,
        formatting.rate,
        formatting.ratio_percent,
        formatting.ratio_percent_interval,
        formatting.seconds,
        formatting.signed_average,
        formatting.signed_nats,
        formatting.size,
        formatting.whole_percent,
        found_of,
        outcome,
        predicted,
        these_trainings,
        wording.code,
        wording.listing,
        wording.per_stage,
        wording.step,
        wording.tex,
        wording.value,
        wording.words,
    )
}
"""What templates may use to print a value."""

CONSTANTS: dict[str, Any] = {
    "ABSENT": formatting.ABSENT,
    "FEW": FEW,
    "FEWEST_ROUNDS": formatting.FEWEST_ROUNDS,
}
"""What else templates may use."""
