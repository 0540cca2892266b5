"""Training of a pruner's scorers with the language model frozen (arXiv 2504.04514, section 3)."""

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
from ablations.sdtp.training.losses import lm_loss, ranking_loss, regression_loss, require_finite_losses
from ablations.sdtp.training.states import UnprunedStates
from ablations.specs.sdtp.counts import stage_counts
from ablations.specs.sdtp.train import PrunerSpec

CLIP = 1.0
"""Largest norm of the gradient of one loss in one step."""


class PrunerTrainer:
    """Trains the scorers of one pruner on the training windows of one saliency table.

    Args:
        lm: Frozen model.
        spec: The training.
        table: Saliency of `spec.layers`.
        states: States of the table's prompts at `spec.layers`, which other trainings also use; None makes own
            ones.
        last: Whether no other training needs `states` after this one, which drops them after its warm-up.

    Attributes:
        pruner: The scorers, in float32.
        prompt_tokens: Tokens of a window's prompt; the continuation after it is not pruned.
        protected: Tokens of a prompt that no stage drops.
        living_counts: Living tokens of a prompt after each stage.
        history: Losses of each step so far, ``[step][loss]``.
        epoch_steps: Optimiser steps of one pass over the windows.
        warmup_steps: Optimiser steps on states of the unpruned model, before the steps on the masked model.
    """

    def __init__(
        self,
        lm: LayeredLM,
        spec: PrunerSpec,
        table: SaliencyTable,
        states: UnprunedStates | None = None,
        last: bool = True,
    ) -> None:
        self.lm = lm
        self.spec = spec
        self.table = table
        self.prompt_tokens = table.ids.shape[1] - table.spec.continuation_tokens
        self.protected = spec.preserve.of(self.prompt_tokens)
        self.living_counts = stage_counts(self.prompt_tokens, spec.keep_ratios, self.protected.tokens)
        self.pruner = untrained(lm, spec)
        self.noise = torch.Generator(lm.device).manual_seed(spec.seed)
        self.history: list[dict[str, float]] = []
        self._saliency_stages = table.spec.target.stages(spec.layers, lm.num_layers)
        # The warm-up trains on saliency losses only.
        has_saliency_losses = self._saliency_stages and (spec.losses.mse or spec.losses.ranking)
        warmup_epochs = spec.warmup_epochs if has_saliency_losses else 0
        self._batches = self._shuffled_batches(warmup_epochs + spec.epochs)
        self.epoch_steps = len(self._batches) // (warmup_epochs + spec.epochs)
        self.warmup_steps = warmup_epochs * self.epoch_steps
        prompts = table.ids[:, : self.prompt_tokens]
        self._states = UnprunedStates(lm, prompts, spec.layers) if states is None else states
        self._last = last
        self._optimiser = torch.optim.AdamW(self.pruner.parameters(), lr=spec.learning_rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, self._decay)
        self._drop_states()

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return len(self._batches)

    @property
    def finished(self) -> bool:
        """Whether all steps have been taken."""
        return len(self.history) == self.steps

    def step(self) -> dict[str, float]:
        """Take the next optimiser step (AdamW, clipped gradients); return its losses.

        Raises:
            UserError: a loss is NaN or infinite.
        """
        number = len(self.history)
        compute = self.warmup_losses if number < self.warmup_steps else self.losses
        losses = compute(self._batches[number])
        self._set_gradients(losses)
        self._optimiser.step()
        self._schedule.step()
        # The only point of a step at which the host waits for the device.
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        require_finite_losses(values, number)
        self.history.append(values)
        self._drop_states()
        return values

    def losses(self, windows: Tensor) -> dict[str, Tensor]:
        """Losses of ``[batch]`` windows on the masked model; losses of weight zero are not computed."""
        weights = self.spec.losses
        ids = self.table.ids[windows].to(self.lm.device)
        scores: list[Tensor] = []

        def keep(stage: int, states: Tensor, visible: Tensor) -> Tensor:
            scores.append(self.pruner(stage, states[:, : self.prompt_tokens]))
            mask = self._sample_mask(stage, scores[-1], visible[:, : self.prompt_tokens])
            # Only the LM loss needs a gradient through the model.
            mask = mask if weights.lm else mask.detach()
            return torch.cat([mask, torch.ones_like(visible[:, self.prompt_tokens :])], -1)

        end = None if weights.lm else self.spec.layers[-1]
        masked = masked_forward(self.lm, ids, self.spec.layers, keep, end)
        losses = {}
        if weights.lm:
            logits = self.lm.head(masked.hidden[:, self.prompt_tokens - 1 : -1])
            losses["lm"] = lm_loss(logits.flatten(0, 1), ids[:, self.prompt_tokens :].flatten())
        return losses | self._saliency_losses(windows, scores, masked.living[..., : self.prompt_tokens])

    def warmup_losses(self, windows: Tensor) -> dict[str, Tensor]:
        """Saliency losses of ``[batch]`` windows over all prompt tokens, on states of the unpruned model.

        These states do not depend on the scorers, so they are computed once and kept, and a further pass is
        cheap. In late stages of the masked model few unprotected tokens are living, so the scorers of these
        stages learn about unprotected tokens mainly here.
        """
        states = torch.stack([self._states.of(window) for window in windows.tolist()], 1)
        states = states.to(self.lm.device)
        scores = [self.pruner(stage, rows) for stage, rows in enumerate(states)]
        all_tokens = torch.ones(states.shape[:3], dtype=torch.bool, device=states.device)
        return self._saliency_losses(windows, scores, all_tokens)

    def state_dict(self) -> dict[str, Any]:
        """State from which `load_state_dict` continues the training exactly."""
        return {
            "pruner": self.pruner.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "noise": self.noise.get_state(),
            "device": self.lm.device.type,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Load a `state_dict`; return whether it was loaded.

        A state from another kind of device is reported and not loaded, since its noise generator cannot be
        continued.
        """
        if state["device"] != self.lm.device.type:
            print(f"checkpoint is from a {state['device']} device; training starts anew", file=sys.stderr)
            return False
        self.pruner.load_state_dict(state["pruner"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.noise.set_state(state["noise"])
        self.history = state["history"]
        self._drop_states()
        print(f"training resumes after {len(self.history)} of {self.steps} steps", file=sys.stderr)
        return True

    def _decay(self, step: int) -> float:
        """Cosine decay of the learning rate, once over the warm-up and once over the rest."""
        boundary = self.warmup_steps
        first, end = (0, boundary) if step < boundary else (boundary, self.steps)
        return (1 + math.cos(math.pi * (step - first) / (end - first))) / 2

    def _saliency_losses(self, windows: Tensor, scores: list[Tensor], living: Tensor) -> dict[str, Tensor]:
        """Regression and ranking loss of ``[batch]`` windows; losses of weight zero are not computed.

        Stages without a saliency (`SaliencyTarget.stages`) do not count.

        Args:
            windows: ``[batch]`` int64.
            scores: Per stage ``[batch, prompt]``.
            living: ``[stages, batch, prompt]`` bool, tokens that count.
        """
        weights = self.spec.losses
        losses: dict[str, Tensor] = {}
        stages = self._saliency_stages
        if not stages:
            return losses
        stage_scores, living = torch.stack(scores[:stages]), living[:stages]
        saliency = self.table.saliency[windows, :stages, : self.prompt_tokens].transpose(0, 1)
        saliency = saliency.to(self.lm.device)
        if weights.mse:
            targets = regression_targets(saliency, living, self.table.spec.target.measure)
            losses["mse"] = regression_loss(stage_scores, targets, living)
        if weights.ranking:
            losses["ranking"] = ranking_loss(stage_scores, saliency, living)
        return losses

    def _drop_states(self) -> None:
        """Drop the unpruned states once nothing needs them."""
        if self._last and len(self.history) >= self.warmup_steps:
            self._states.clear()

    def _shuffled_batches(self, epochs: int) -> list[Tensor]:
        """Windows of every step of every epoch, ``[batch]`` int64 each."""
        windows = (~self.table.heldout).nonzero()[:, 0]
        generator = torch.Generator().manual_seed(self.spec.seed)
        return [
            batch
            for _ in range(epochs)
            for batch in windows[torch.randperm(len(windows), generator=generator)].split(self.spec.batch)
        ]

    def _sample_mask(self, stage: int, scores: Tensor, visible: Tensor) -> Tensor:
        keep, temperature = self.living_counts[stage], self.spec.temperature
        return sample_keep(scores, visible, keep, self.protected, temperature, self.noise)

    def _set_gradients(self, losses: dict[str, Tensor]) -> None:
        """Set the parameters' gradients to the weighted sum of the losses' gradients, each clipped by itself.

        Clipped together, the gradient of the LM loss would dominate the others: it varies much from window to
        window, and grows by an order of magnitude at low temperatures and where an attention sink is dropped.
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
    """The pruner from which a training starts, initialised from the spec's seed."""
    torch.manual_seed(spec.seed)
    return Pruner(lm.config.hidden_size, spec.width, len(spec.layers)).to(lm.device)
