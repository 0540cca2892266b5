"""Experiments as targets of the workflow, by their ids."""

from collections.abc import Callable, Iterable

from ablations.study.errors import UserError
from ablations.study.planning.rows import Row


def require_free_ids(rows: Iterable[Row], taken: Callable[[str], bool]) -> None:
    """Check that no experiment is called like a rule: as a target it would be two things.

    Args:
        rows: Experiments.
        taken: Whether a rule has a name.

    Raises:
        UserError: one is.
    """
    for row in rows:
        if taken(row.experiment.id):
            raise UserError(
                f"{row.experiment.method}.ablations.{row.experiment.id}: this id is the name of a rule of the"
                " workflow; choose another"
            )
