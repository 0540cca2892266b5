"""What becomes of the tokens that a stage does not keep."""

from typing import Literal

Positions = Literal["original", "packed", "stale"]


Mask = Literal["hard", "soft"]


Propagation = Literal["cascade", "local", "stale_keys"]


Selection = Literal["top_k", "top_p", "threshold"]
