"""Training sequences of a distilled draft, written by `distil_teacher`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from ablations.core.artefact import open_artefact
from ablations.dynatree.distilling.states import TEACHER_FILE


@dataclass(frozen=True)
class TeacherSequences:
    """Sequences to train on; row i of the draft reads token i + 1.

    Attributes:
        ids: ``[sequences, length]`` int64.
        states: ``[sequences, length - 1, hidden]`` bfloat16, the target's normalised states after a token.
        learned: ``[sequences, length]`` bool, tokens to learn. They include tokens of the prompt, where the
            target's distribution is as useful, and its states come from the same forward.
        generated: ``[sequences, length]`` bool, those of the learned tokens that the target generated.
    """

    ids: Tensor
    states: Tensor
    learned: Tensor
    generated: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Self:
        return type(self)(self.ids[rows], self.states[rows], self.learned[rows], self.generated[rows])

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Self:
        """The same sequences on another device."""
        tensors = (self.ids, self.states, self.learned, self.generated)
        return type(self)(*(tensor.to(device) for tensor in tensors))


def read_teacher_sequences(manifest: Path, unroll: int) -> tuple[TeacherSequences, Tensor]:
    """Read the teacher's sequences, and the number of occurrences of each token, ``[vocabulary]``.

    The first `unroll` + 2 tokens of a sequence are not learned: `unroll` drafted tokens could not end there.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    tensors = load_file(folder / TEACHER_FILE)
    positions = torch.arange(tensors["ids"].shape[1])
    learned = (positions >= unroll + 2) & (positions < tensors["ends"][:, None])
    generated = learned & (positions >= tensors["starts"][:, None])
    sequences = TeacherSequences(tensors["ids"].long(), tensors["states"], learned, generated)
    return sequences, tensors["counts"]
