"""Spec of `ablations.dynatree.fit_ngram`."""

from typing import Annotated

from pydantic import Field

from ablations.core.contract import Contract


class NgramSpec(Contract):
    """Job of `ablations.dynatree.fit_ngram`: counts of training splits, as the target tokenises them."""

    order: Annotated[int, Field(ge=1, le=8)] = 4
    """Longest n-gram (context of order - 1 tokens)."""
    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the texts whose training splits are counted."""
