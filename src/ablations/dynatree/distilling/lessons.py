"""What a draft is distilled from, as `distil_teacher` left it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from ablations.dynatree.distil_teacher import TEACHER_FILE
from ablations.study.artefact import open_artefact


@dataclass(frozen=True)
class Lessons:
    """Sequences to learn from; row i of a sequence is the draft's row of token i + 1.

    Attributes:
        ids: ``[sequences, length]`` int64.
        states: ``[sequences, length - 1, hidden]`` bfloat16, the target's normalised states after a token.
        taught: ``[sequences, length]`` bool, tokens to learn: the prompt's too, for the target's distribution
            after any text is worth as much, and its state there costs nothing more.
        written: ``[sequences, length]`` bool, those of them that the target wrote itself.
    """

    ids: Tensor
    states: Tensor
    taught: Tensor
    written: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Self:
        return type(self)(self.ids[rows], self.states[rows], self.taught[rows], self.written[rows])

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        parts = (self.ids, self.states, self.taught, self.written)
        return type(self)(*(part.to(device) for part in parts))


def read_lessons(manifest: Path, unroll: int) -> tuple[Lessons, Tensor]:
    """Read the teacher's sequences, and how often each token of its vocabulary occurs (``[vocabulary]``).

    Tokens too near to the beginning for `unroll` drafted ones to end there are not taught.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    made = load_file(folder / TEACHER_FILE)
    places = torch.arange(made["ids"].shape[1])
    taught = (places >= unroll + 2) & (places < made["ends"][:, None])
    written = taught & (places >= made["starts"][:, None])
    return Lessons(made["ids"].long(), made["states"], taught, written), made["counts"]
