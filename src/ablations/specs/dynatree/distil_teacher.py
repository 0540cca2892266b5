"""Spec of `ablations.dynatree.distil_teacher`."""

from typing import Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from ablations.core.contract import Contract, conflict
from ablations.specs.lm import Compute


class TeacherSpec(Contract):
    """Job of `ablations.dynatree.distil_teacher`: what the target writes for a draft to learn from."""

    texts: NonNegativeInt
    """Beginnings of training documents that the target continues."""
    questions: NonNegativeInt
    """Questions that the target makes up in its chat template, and answers."""
    prompt_tokens: PositiveInt = 96
    """Tokens of the beginning of a document."""
    new_tokens: PositiveInt = 160
    """Tokens that are written after it; questions and answers are as long in all."""
    batch: PositiveInt = 48
    """Sequences written at once."""
    seed: NonNegativeInt = 0
    """Seed of windows and questions."""
    compute: Compute = Compute(dtype="bfloat16")
    """How the job computes."""

    @model_validator(mode="after")
    def _something_to_write(self) -> Self:
        if not self.texts + self.questions:
            raise conflict("texts", "the target has nothing to write; raise it or 'questions'")
        return self
