"""What every contract between jobs has in common: strict, immutable, self-describing models."""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """An immutable value that crosses a job boundary.

    Unknown keys, NaN and infinity are errors. Attribute docstrings become the descriptions of the
    exported JSON schema; the code digest leaves docstrings out, so that wording never reruns a job.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        # `model` is a word of this field, not only of pydantic.
        protected_namespaces=(),
    )
