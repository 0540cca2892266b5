"""Schedules made explicit: the layers that prune, and one keep ratio for each stage."""

from ablations.core.errors import UserError
from ablations.study.config.sdtp import Schedule


def pruning_layers(schedule: Schedule, total: int, model: str, key: str) -> tuple[int, ...]:
    """Explicit pruning layers of a schedule.

    Args:
        schedule: Schedule of the configuration.
        total: Layers of the model.
        model: Name of the model, for errors.
        key: Configuration key of the component groups, for errors.

    Raises:
        UserError: the model has no such layer, or too few layers for the stages.
    """
    if schedule.layers is not None:
        layers = tuple(sorted(set(schedule.layers)))
        if layers[-1] >= total:
            raise UserError(
                f"{key}.schedule.layers: layer {layers[-1]} is out of range;"
                f" '{model}' has layers 0 to {total - 1}"
            )
        return layers
    first, stages = schedule.first_layer, schedule.stages
    if first + stages > total:
        raise UserError(
            f"{key}.schedule.stages: {stages} stages from layer {first} do not fit;"
            f" '{model}' has layers 0 to {total - 1}"
        )
    if stages == 1:
        return (first,)
    step = (total - 1 - first) / (stages - 1)
    return tuple(round(first + step * stage) for stage in range(stages))


def stage_ratios(schedule: Schedule, stages: int) -> tuple[float, ...]:
    """Keep ratio of each stage."""
    ratio = schedule.keep_ratio
    if schedule.scope == "total":
        ratio = ratio ** (1 / stages)
    return (ratio,) * stages
