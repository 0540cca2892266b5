"""Jobs that a run has submitted."""

import re
from collections.abc import Iterable

from ablations.study.errors import UserError
from ablations.study.planning.jobs import DIGEST_LENGTH
from ablations.study.planning.plan import Plan


def require_planned(plan: Plan, command: Iterable[str]) -> None:
    """Check that a submitted job is one that this checkout would plan.

    Args:
        plan: Made of the configuration that the job was submitted with.
        command: Command line of the job, whose targets name digests.

    Raises:
        UserError: the code or the pinned versions have changed since.
    """
    for digest in re.findall(rf"\bdigest=([0-9a-f]{{{DIGEST_LENGTH}}})\b", " ".join(command)):
        if digest not in plan.jobs:
            raise UserError(
                f"results/spec/{digest}.json: the code or constraints.txt changed while this job waited;"
                " run snakemake again"
            )
