"""What a run submits its jobs with, kept as it was."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablations.study.errors import UserError
from ablations.study.files import sha256_text, write_text_if_changed
from ablations.study.planning.jobs import DIGEST_LENGTH
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import RESULTS


def remember(config: dict[str, Any]) -> Path:
    """Write a merged configuration under a name made of its content; return the path."""
    # The order of keys is kept: that of the prompts is part of specs.
    text = json.dumps(config)
    path = (RESULTS / "submitted" / f"{sha256_text(text)}.json").resolve()
    write_text_if_changed(path, text)
    return path


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
