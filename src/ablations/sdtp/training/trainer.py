"""Training of the scorers of one pruner, the language model frozen (arXiv 2504.04514, section 3)."""

import math
import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.masks import masked_forward, sample_keep
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.sdtp.training.losses import lm_loss, ranking_loss, regression_loss, require_finite
from ablations.sdtp.training.states import unpruned_states
from ablations.study.contracts.sdtp import PrunerSpec, stage_counts

CLIP = 1.0
"""Largest norm of one loss's gradient in one step."""


class Trainer:
    """Trains the scorers of one pruner on the training windows of one saliency table.

    Attributes:
        pruner: The scorers, in float32.
        prompt: Tokens of a window before its continuation, the part that is pruned.
        protected: Tokens of a prompt that no stage drops.
        counts: Living tokens of a prompt after each stage.
        history: The losses of each step that was taken, ``[step][loss]``.
        epoch: Optimiser steps of one pass over the windows.
        warmup: Optimiser steps on the unpruned model's states, before those on the masked model's.
    """

    def __init__(self, lm: LayeredLM, spec: PrunerSpec, table: SaliencyTable) -> None:
        self.lm = lm
        self.spec = spec
        self.table = table
        self.prompt = table.ids.shape[1] - table.spec.continuation_tokens
        self.protected = spec.preserve.of(self.prompt)
        self.counts = stage_counts(self.prompt, spec.keep_ratios, self.protected.tokens)
        self.pruner = untrained(lm, spec)
        self.noise = torch.Generator(lm.device).manual_seed(spec.seed)
        self.history: list[dict[str, float]] = []
        # A warm-up is on saliency, so without its losses there is none.
        self._taught = table.spec.target.stages(spec.layers, lm.num_layers)
        taught = self._taught and (spec.losses.mse or spec.losses.ranking)
        warmup_epochs = spec.warmup_epochs if taught else 0
        self._batches = self._order(warmup_epochs + spec.epochs)
        self.epoch = len(self._batches) // (warmup_epochs + spec.epochs)
        self.warmup = warmup_epochs * self.epoch
        self._states: dict[int, Tensor] = {}
        self._optimiser = torch.optim.AdamW(self.pruner.parameters(), lr=spec.learning_rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, self._decay)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return len(self._batches)

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return len(self.history) == self.steps

    def step(self) -> dict[str, float]:
        """Take the next optimiser step (AdamW, clipped gradients); return its losses.

        Raises:
            UserError: a loss is NaN or infinite.
        """
        number = len(self.history)
        losses = (self.warmup_losses if number < self.warmup else self.losses)(self._batches[number])
        self._set_gradients(losses)
        self._optimiser.step()
        self._schedule.step()
        # The one moment of a step in which the host waits for the device.
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        require_finite(values, number)
        self.history.append(values)
        if len(self.history) == self.warmup:
            self._states.clear()
        return values

    def losses(self, windows: Tensor) -> dict[str, Tensor]:
        """Losses of ``[batch]`` windows through the masked model; those of weight zero are not computed."""
        weights = self.spec.losses
        ids = self.table.ids[windows].to(self.lm.device)
        scores: list[Tensor] = []

        def keep(stage: int, states: Tensor, visible: Tensor) -> Tensor:
            scores.append(self.pruner(stage, states[:, : self.prompt]))
            drawn = self._draw(stage, scores[-1], visible[:, : self.prompt])
            # Without an LM loss nothing wants a gradient through the model.
            drawn = drawn if weights.lm else drawn.detach()
            return torch.cat([drawn, torch.ones_like(visible[:, self.prompt :])], -1)

        end = None if weights.lm else self.spec.layers[-1]
        masked = masked_forward(self.lm, ids, self.spec.layers, keep, end)
        losses = {}
        if weights.lm:
            logits = self.lm.head(masked.hidden[:, self.prompt - 1 : -1])
            losses["lm"] = lm_loss(logits.flatten(0, 1), ids[:, self.prompt :].flatten())
        return losses | self._saliency_losses(windows, scores, masked.living[..., : self.prompt])

    def warmup_losses(self, windows: Tensor) -> dict[str, Tensor]:
        """Saliency losses of ``[batch]`` windows over all prompt tokens, on the unpruned model's states.

        These states do not depend on the scorers: they are computed once and kept, so that a further pass
        costs little. In late stages of the masked model hardly any but protected tokens live; what is
        learned there of the others, is learned here.
        """
        states = torch.stack([self._unpruned(window) for window in windows.tolist()], 1).to(self.lm.device)
        scores = [self.pruner(stage, rows) for stage, rows in enumerate(states)]
        everything = torch.ones(states.shape[:3], dtype=torch.bool, device=states.device)
        return self._saliency_losses(windows, scores, everything)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "pruner": self.pruner.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "noise": self.noise.get_state(),
            "device": self.lm.device.type,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Continue from a `state_dict`, unless it comes from another kind of device; return whether it does.

        Noise drawn on another kind of device could not be continued; that is told, and nothing is loaded.
        """
        if state["device"] != self.lm.device.type:
            print(f"checkpoint is from a {state['device']} device; training starts anew", file=sys.stderr)
            return False
        self.pruner.load_state_dict(state["pruner"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.noise.set_state(state["noise"])
        self.history = state["history"]
        print(f"training resumes after {len(self.history)} of {self.steps} steps", file=sys.stderr)
        return True

    def _decay(self, step: int) -> float:
        """Cosine decay of the learning rate, once over the warm-up and once over the rest."""
        first, end = (0, self.warmup) if step < self.warmup else (self.warmup, self.steps)
        return (1 + math.cos(math.pi * (step - first) / (end - first))) / 2

    def _saliency_losses(self, windows: Tensor, scores: list[Tensor], living: Tensor) -> dict[str, Tensor]:
        """Losses against the saliency of ``[batch]`` windows, those of weight zero left out.

        Stages without a saliency (`SaliencyTarget.stages`) are left out, too.

        Args:
            windows: ``[batch]`` int64.
            scores: Per stage ``[batch, prompt]``.
            living: ``[stages, batch, prompt]`` bool, the tokens that count.
        """
        weights = self.spec.losses
        losses: dict[str, Tensor] = {}
        if not self._taught:
            return losses
        taught, living = torch.stack(scores[: self._taught]), living[: self._taught]
        saliency = self.table.saliency[windows, : self._taught, : self.prompt].transpose(0, 1)
        saliency = saliency.to(self.lm.device)
        if weights.mse:
            targets = regression_targets(saliency, living, self.table.spec.target.measure)
            losses["mse"] = regression_loss(taught, targets, living)
        if weights.ranking:
            losses["ranking"] = ranking_loss(taught, saliency, living)
        return losses

    def _unpruned(self, window: int) -> Tensor:
        """``[stages, prompt, hidden]`` of one window, on the CPU, computed when first asked for."""
        if window not in self._states:
            ids = self.table.ids[window, : self.prompt].to(self.lm.device)
            self._states[window] = unpruned_states(self.lm, ids[None], self.spec.layers)[:, 0].cpu()
        return self._states[window]

    def _order(self, epochs: int) -> list[Tensor]:
        """The windows of every step of every epoch, ``[batch]`` int64 each."""
        windows = (~self.table.heldout).nonzero()[:, 0]
        order = torch.Generator().manual_seed(self.spec.seed)
        return [
            batch
            for _ in range(epochs)
            for batch in windows[torch.randperm(len(windows), generator=order)].split(self.spec.batch)
        ]

    def _draw(self, stage: int, scores: Tensor, visible: Tensor) -> Tensor:
        spec = self.spec
        return sample_keep(scores, visible, self.counts[stage], self.protected, spec.temperature, self.noise)

    def _set_gradients(self, losses: dict[str, Tensor]) -> None:
        """Give the parameters the weighted sum of each loss's gradient, clipped by itself.

        Clipped together, the LM loss would drown the others: its gradient has little in common from
        window to window, and grows by an order of magnitude with the inverse of the temperature and
        where an attention sink was dropped.
        """
        parameters = list(self.pruner.parameters())
        self._optimiser.zero_grad()
        for name, loss in losses.items():
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True, retain_graph=True)
            factor = getattr(self.spec.losses, name) * (CLIP / get_total_norm(gradients)).clamp(max=1.0)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                grad = factor * gradient
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def untrained(lm: LayeredLM, spec: PrunerSpec) -> Pruner:
    """The pruner that a training starts from."""
    torch.manual_seed(spec.seed)
    return Pruner(lm.config.hidden_size, spec.width, len(spec.layers)).to(lm.device)
