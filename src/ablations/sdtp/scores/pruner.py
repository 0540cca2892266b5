"""The pruning module: one small token scorer per pruning layer (arXiv 2504.04514, eq. 1)."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ablations.core.errors import UserError
from ablations.specs.sdtp.train import PrunerSpec

PRUNER_FILE = "pruner.safetensors"
_EPSILON = 1e-6
# Of the tokens of a prompt of 512; the standard deviation is 1 at any length.
_MEAN_LOG_DISTANCE = 5.2


class TokenScorer(nn.Module):
    """A two-layer MLP with GELU and two outputs per token, keep and drop.

    States are RMS-normalised first, without parameters: residual streams grow by orders of magnitude with
    depth, and a few tokens (the first above all) have far larger states still. The MLP runs in float32.

    Args:
        hidden_size: Width of a state.
        width: Width of the hidden layer.
        distance: Whether one more input is a token's distance to the end of the prompt, as its logarithm.
    """

    def __init__(self, hidden_size: int, width: int, distance: bool = False) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, width)
        self.outer = nn.Linear(width, 2)
        self.far = nn.Linear(1, width, bias=False) if distance else None

    def forward(self, states: Tensor, distances: Tensor | None = None) -> Tensor:
        """Score tokens.

        Args:
            states: ``[..., hidden]`` hidden states, any float dtype.
            distances: ``[...]`` int64, at least 1; needed with `distance`, and left aside without.

        Returns:
            ``[...]`` float32, the keep logit: keep minus drop output, the log-odds of keeping. Regression,
            ranking, masks and selection all use it.
        """
        states = states.float()
        # On the CPU F.rms_norm reads the states five times, this code twice.
        root_mean_square = torch.linalg.vector_norm(states, dim=-1, keepdim=True) * states.shape[-1] ** -0.5
        normalised = states / (root_mean_square + _EPSILON)
        inner = self.inner(normalised)
        if self.far is not None:
            assert distances is not None
            inner = inner + self.far(distances[..., None].log() - _MEAN_LOG_DISTANCE)
        keep, drop = self.outer(F.gelu(inner)).unbind(-1)
        return keep - drop


class Pruner(nn.Module):
    """The scorers of all stages.

    Args:
        hidden_size: Width of a state.
        width: Width of a scorer's hidden layer.
        stages: How many scorers.
        distance: Whether scorers are told a token's distance to the end of the prompt.
    """

    def __init__(self, hidden_size: int, width: int, stages: int, distance: bool = False) -> None:
        super().__init__()
        self.width = width
        self.distance = distance
        self.scorers = nn.ModuleList(TokenScorer(hidden_size, width, distance) for _ in range(stages))

    def of_stages(self, stages: Sequence[int]) -> "Pruner":
        """A pruner with the scorers of these stages only, in this order."""
        pruner = Pruner(self.scorers[0].inner.in_features, self.width, 0, self.distance)
        pruner.scorers.extend(self.scorers[stage] for stage in stages)
        return pruner

    def of_prompt(self, tokens: int) -> Callable[[int, Tensor, Tensor], Tensor]:
        """The scorer of a prompt of so many tokens (`pruned.living.Scorer`), whatever the pruner is told.

        It takes a stage, states ``[..., hidden]`` and their indices ``[...]`` in the prompt.
        """

        def score(stage: int, states: Tensor, indices: Tensor) -> Tensor:
            return self(stage, states, tokens - indices if self.distance else None)

        return score

    def forward(self, stage: int, states: Tensor, distances: Tensor | None = None) -> Tensor:
        """Keep logits ``[...]`` of ``[..., hidden]`` states at the input of stage `stage`'s layer.

        `distances` ``[...]`` int64 are those to the end of the prompt: 1 for the last token.
        """
        return self.scorers[stage](states, distances)


def save_pruner(path: Path, pruner: Pruner, spec: PrunerSpec) -> None:
    """Write the scorers' weights; the spec that they were trained from goes into the file's metadata."""
    weights = {name: tensor.contiguous().cpu() for name, tensor in pruner.state_dict().items()}
    save_file(weights, path, metadata={"spec": spec.model_dump_json()})


def load_pruner(path: Path, device: torch.device) -> tuple[Pruner, PrunerSpec]:
    """Read a pruner written by `save_pruner`; its weights are frozen.

    Raises:
        UserError: the file is not a pruner.
    """
    try:
        with safe_open(path, "pt") as file:
            spec = PrunerSpec.model_validate(json.loads((file.metadata() or {})["spec"]))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        width, hidden_size = weights["scorers.0.inner.weight"].shape
        pruner = Pruner(hidden_size, width, len(spec.layers), spec.distance)
        pruner.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a pruner ({error}); delete it and run snakemake again") from None
    return pruner.to(device).eval().requires_grad_(False), spec
