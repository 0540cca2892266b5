"""How a stage selects tokens, and what becomes of the others: their positions, mask and propagation."""

from typing import Literal

Positions = Literal["original", "packed", "stale"]


Mask = Literal["hard", "soft"]


Propagation = Literal["cascade", "local", "stale_keys"]


Selection = Literal["top_k", "top_p", "threshold"]
