"""The confirmatory family as it is configured: its experiments run, and its looks fit what is measured."""

from itertools import pairwise
from math import fsum

from ablations.core.errors import UserError
from ablations.study.config.changes import selected
from ablations.study.config.problems import check_known
from ablations.study.config.study import StudyConfig

_ROUNDING = 1e-12
"""By how much levels may exceed their sum: that of decimal fractions in binary."""


def check_family(config: StudyConfig) -> None:
    """Check the confirmatory experiments and the looks at them.

    Raises:
        UserError: an experiment of the family does not run; looks do not grow, spend more than the study's
            level, or are not what is measured.
    """
    for method in ("sdtp", "dynatree"):
        half, ids = getattr(config, method), getattr(config.paper.confirmatory, method)
        key = f"paper.confirmatory.{method}"
        check_known(key, ids, half.ablations, f"{method}.ablations")
        running = selected(half.ablations, half.only)
        for name in ids:
            if name not in running:
                raise UserError(
                    f"{key}: {name!r} does not run ({method}.only); add it there, or take it out here"
                )
    if config.paper.looks:
        _check_looks(config)


def _check_looks(config: StudyConfig) -> None:
    key, looks, evaluation = "paper.looks", config.paper.looks, config.sdtp.evaluation
    for number, (before, after) in enumerate(pairwise(looks), 1):
        if (
            min(after.documents - before.documents, after.retrieval - before.retrieval) < 0
            or after.model_copy(update={"alpha": before.alpha}) == before
        ):
            raise UserError(
                f"{key}.{number}: no more documents or retrieval prompts than at the look before; sort them"
            )
    spent = fsum(look.alpha for look in looks)
    if spent > config.paper.thresholds.alpha + _ROUNDING:
        raise UserError(
            f"{key}: their alpha is {spent:g} together, more than paper.thresholds.alpha"
            f" ({config.paper.thresholds.alpha:g}); lower one"
        )
    if config.sdtp.only == ():
        raise UserError(
            f"{key}: looks are at what sdtp.evaluation measures, and sdtp.only is empty; set it to []"
        )
    asked = evaluation.retrieval.count if evaluation.retrieval else None
    if not any(look.documents == evaluation.documents and asked in (None, look.retrieval) for look in looks):
        declared = ", ".join(f"{look.documents} and {look.retrieval}" for look in looks)
        raise UserError(
            f"sdtp.evaluation.documents: {evaluation.documents} documents and {asked or 'no'} retrieval"
            f" prompts (retrieval.count) are none of paper.looks ({declared}); take a look's, or, before"
            " measuring, declare other looks ([] for none)"
        )
