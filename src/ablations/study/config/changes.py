"""Which ablations run, what each makes of the baseline, and what it is compared with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Generic, TypeVar

from ablations.core.contract import Contract, Identifier
from ablations.core.errors import UserError
from ablations.evidence.expectations import Method
from ablations.study.config.dynatree import DynatreeBaseline
from ablations.study.config.experiment import Ablation
from ablations.study.config.problems import check_known, validated
from ablations.study.config.sdtp import SdtpBaseline

Baseline = TypeVar("Baseline", bound=Contract)
AnyAblation = TypeVar("AnyAblation", bound=Ablation)

BASELINE = "baseline"
"""Id of SDTP's baseline."""

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


@dataclass(frozen=True)
class Resolved(Generic[Baseline]):
    """An experiment with all that it inherits.

    Attributes:
        change: What differs from the baseline.
        components: Component groups of the baseline with that change.
        versus: Experiment that it is compared with; None for the baseline, and for decoding that names none.
    """

    change: dict[str, Any]
    components: Baseline
    versus: Identifier | None


def resolved(
    method: Method, baseline: Baseline, ablations: Mapping[str, Ablation]
) -> dict[str, Resolved[Baseline]]:
    """The baseline, and experiments with all that they inherit, by id.

    Args:
        method: Method of the experiments.
        baseline: Component groups of its baseline.
        ablations: The experiments that run, among them all that they start from.

    Raises:
        UserError: experiments start from each other in a circle, or a value is unknown or impossible.
    """
    arms: dict[str, Resolved[Baseline]] = {BASELINE: Resolved({}, baseline, None)}
    for name in _origins_first(method, ablations):
        ablation = ablations[name]
        key = f"{method}.ablations.{name}.change"
        change, components = _changed(baseline, arms[ablation.origin or BASELINE], ablation.change, key)
        versus = ablation.origin or ablation.versus or (BASELINE if method == "sdtp" else None)
        arms[name] = Resolved(change, components, versus)
    return arms


def require_isolated(
    method: Method, ablations: Mapping[str, Ablation], arms: Mapping[str, Resolved[Baseline]]
) -> None:
    """Check that one component group at most tells an experiment from the one that it is compared with.

    An experiment that is compared with nothing is held against the baseline. Groups count as they are
    configured, those too that mean nothing without a drafter.

    Args:
        method: Method of the experiments.
        ablations: The experiments that run.
        arms: These and the baseline, resolved.

    Raises:
        UserError: several groups do, and the experiment does not say `compound`.
    """
    for name, ablation in ablations.items():
        versus = arms[name].versus or BASELINE
        own, other = dict(arms[name].components), dict(arms[versus].components)
        groups = [group for group in own if own[group] != other[group]]
        if len(groups) > 1 and not ablation.compound:
            comparator = "the baseline" if versus == BASELINE else versus
            raise UserError(
                f"{method}.ablations.{name}.change: differs from {comparator} in {len(groups)} component"
                f" groups ({', '.join(groups)}); isolate one, or say compound: true"
            )


def _origins_first(method: Method, ablations: Mapping[str, Ablation]) -> list[str]:
    """Ids of the experiments, each after the one that it starts from.

    Raises:
        UserError: there is a circle.
    """
    origins = {name: ablations.keys() & {ablation.origin} for name, ablation in ablations.items()}
    try:
        return [*TopologicalSorter(origins).static_order()]
    except CycleError as error:
        circle = [*reversed(error.args[1])]
        raise UserError(
            f"{method}.ablations.{circle[0]}.from: a circle ({' from '.join(circle)}); take 'from' out of one"
        ) from None


def _changed(
    baseline: Baseline, origin: Resolved[Baseline], change: dict[str, Any], key: str
) -> tuple[dict[str, Any], Baseline]:
    """A change on top of its origin's, and the baseline with both.

    Args:
        baseline: Component groups of the baseline.
        origin: What the experiment starts from.
        change: Its own change.
        key: Key of that change in the configuration, for errors.

    Raises:
        UserError: an unknown or impossible value.
    """
    for group, (method, other) in FOREIGN_GROUPS.items():
        if group in change and group not in type(baseline).model_fields:
            raise UserError(
                f"{key}.{group}: this component is {method}'s; pruned prompts and drafted tokens"
                f" together are not supported, change components of {other} alone"
            )
    check_known(key, change, type(baseline).model_fields, "the component groups")
    merged = _merge(origin.change, change, origin.components.model_dump())
    values = baseline.model_dump()
    return merged, validated(type(baseline), _merge(values, merged, values), key)


def _merge(base: Any, change: Any, values: Any) -> Any:
    """`base` with `change` on top; `values`, what `base` comes to, has the kind that `base` may leave out."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    if "kind" in values and change.get("kind", values["kind"]) != values["kind"]:
        # Another kind has keys of its own.
        return change
    return base | {key: _merge(base.get(key), value, values.get(key)) for key, value in change.items()}
