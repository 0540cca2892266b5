"""Which ablations run, and what the baseline becomes under each."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ablations.study.config.dynatree import DynatreeBaseline
from ablations.study.config.experiment import Ablation
from ablations.study.config.sdtp import SdtpBaseline
from ablations.study.contracts.base import Contract
from ablations.study.errors import UserError
from ablations.study.problems import check_known, validated

Baseline = TypeVar("Baseline", bound=Contract)
AnyAblation = TypeVar("AnyAblation", bound=Ablation)

# Components that one method has and the other does not: the method, and the other.
FOREIGN_GROUPS = {
    **{
        group: ("SDTP", "DynaTree")
        for group in SdtpBaseline.model_fields
        if group not in DynatreeBaseline.model_fields
    },
    **{
        group: ("DynaTree", "SDTP")
        for group in DynatreeBaseline.model_fields
        if group not in SdtpBaseline.model_fields
    },
}


def selected(ablations: Mapping[str, AnyAblation], only: Iterable[str] | None) -> dict[str, AnyAblation]:
    """The ablations to run, in the order of the configuration."""
    wanted = set(ablations if only is None else only)
    return {name: ablation for name, ablation in ablations.items() if name in wanted}


def changed(baseline: Baseline, ablation: Ablation, key: str) -> Baseline:
    """The baseline with an ablation's change applied.

    Args:
        baseline: Component groups of the baseline.
        ablation: What to change.
        key: Key of the ablation in the configuration, for errors.

    Raises:
        UserError: an unknown or impossible value, or two component groups without `compound`.
    """
    groups = list(ablation.change)
    for group, (method, other) in FOREIGN_GROUPS.items():
        if group in groups and group not in type(baseline).model_fields:
            raise UserError(
                f"{key}.change.{group}: this component is {method}'s; pruned prompts and drafted tokens"
                f" together are not supported, change components of {other} alone"
            )
    check_known(f"{key}.change", groups, type(baseline).model_fields, "the component groups")
    if len(groups) > 1 and not ablation.compound:
        raise UserError(
            f"{key}.change: touches {len(groups)} component groups ({', '.join(groups)});"
            " isolate one, or say compound: true"
        )
    merged = _merge(baseline.model_dump(), ablation.change)
    return validated(type(baseline), merged, f"{key}.change")


def _merge(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    if "kind" in base and change.get("kind", base["kind"]) != base["kind"]:
        # Another kind has keys of its own.
        return change
    return {**base, **{key: _merge(base.get(key), value) for key, value in change.items()}}
