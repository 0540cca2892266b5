"""Training of a pruner's scorers with the language model frozen (arXiv 2504.04514, section 3)."""

import math
import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import get_total_norm
from torch.nn.utils.rnn import pad_sequence

from ablations.lm.layered import LayeredLM
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.sdtp.training.losses import lm_loss, ranking_loss, require_finite_losses
from ablations.sdtp.training.masked import masked_forward, sample_keep
from ablations.sdtp.training.order import shuffled_batches
from ablations.sdtp.training.states import UnprunedStates
from ablations.specs.sdtp.counts import stage_counts
from ablations.specs.sdtp.train import PrunerSpec

CLIP = 1.0
"""Largest norm of the gradient of one loss in one step."""

MASKED_RATE = 0.3
"""Learning rate of the masked steps over that of the warm-up. At 1 the few noisy steps undo part of what the
warm-up learned: on validation prompts 27 instead of 30 of 40 facts were found, at 0.3 it was 29, and the
divergence on text fell as far."""


class PrunerTrainer:
    """Trains the scorers of one pruner on the training windows of one saliency table.

    Args:
        lm: Frozen model.
        spec: The training.
        table: Saliency of `spec.layers`.
        states: States of the table's windows at `spec.layers`, which other trainings also use; None makes own
            ones.

    Attributes:
        pruner: The scorers, in float32.
        protected: Tokens of a prompt that no stage drops.
        living_counts: Living tokens of a prompt after each stage.
        history: Losses of each step so far, ``[step][loss]``.
        batches: Windows of every step, ``[batch]`` int64 each.
        warmup_steps: Optimiser steps on states of the unpruned model, before the steps on the masked model.
    """

    def __init__(
        self, lm: LayeredLM, spec: PrunerSpec, table: SaliencyTable, states: UnprunedStates | None = None
    ) -> None:
        self.lm = lm
        self.spec = spec
        self.table = table
        self.protected = spec.preserve.of(table.prompt_tokens)
        self.living_counts = stage_counts(table.prompt_tokens, spec.keep_ratios, self.protected.tokens)
        self.pruner = untrained(lm, spec)
        self.noise = torch.Generator(lm.device).manual_seed(spec.seed)
        self.history: list[dict[str, float]] = []
        self._scorer = self.pruner.of_prompt(table.prompt_tokens)
        self._saliency_stages = table.spec.target.stages(spec.layers, lm.num_layers)
        self._states = UnprunedStates(lm, table, spec.layers) if states is None else states
        # The warm-up trains on saliency losses only.
        has_saliency_losses = self._saliency_stages and (spec.losses.mse or spec.losses.ranking)
        warmup, masked = shuffled_batches(table, spec)
        self.warmup_steps = len(warmup) if has_saliency_losses else 0
        self.batches = warmup[: self.warmup_steps] + masked
        self._optimiser = torch.optim.AdamW(self.pruner.parameters(), lr=spec.learning_rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, self._decay)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return len(self.batches)

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
        if number == self.warmup_steps:
            # Moments of the small gradients of the warm-up would make the steps on the LM loss many times the
            # learning rate, and undo what was learned.
            self._optimiser.state.clear()
        compute = self.warmup_losses if number < self.warmup_steps else self.losses
        losses = compute(self.batches[number])
        self._set_gradients(losses)
        self._optimiser.step()
        self._schedule.step()
        # The only point of a step at which the host waits for the device.
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        require_finite_losses(values, number)
        self.history.append(values)
        return values

    def losses(self, windows: Tensor) -> dict[str, Tensor]:
        """Losses of ``[batch]`` windows on the masked model; losses of weight zero are not computed."""
        weights, prompt = self.spec.losses, self.table.prompt_tokens
        hidden = pad_sequence([self._states.window(window) for window in windows.tolist()], batch_first=True)
        scores: list[Tensor] = []
        living: list[Tensor] = []

        def keep(stage: int, states: Tensor, indices: Tensor) -> Tensor:
            scores.append(self._scorer(stage, states, indices))
            living.append(indices)
            mask = sample_keep(
                scores[-1], self.living_counts[stage], self.protected, self.spec.temperature, self.noise
            )
            # Only the LM loss needs a gradient through the model.
            return mask if weights.lm else mask.detach()

        end = None if weights.lm else self.spec.layers[-1]
        layers, counts = self.spec.layers, self.living_counts
        hidden = masked_forward(self.lm, hidden.to(self.lm.device), layers, counts, prompt, keep, end)
        losses = {}
        if weights.lm:
            # A window counts by itself, whatever the number of its tokens; the rest of a row is padding.
            lengths = self.table.continuations[windows].tolist()
            ids = self.table.ids[windows, prompt:].to(self.lm.device)
            rows = zip(hidden, ids, lengths, strict=True)
            parts = [
                lm_loss(self.lm.head(states[None, :length])[0], row[:length]) for states, row, length in rows
            ]
            losses["lm"] = torch.stack(parts).mean()
        return losses | self._saliency_losses(windows, scores, living)

    def warmup_losses(self, windows: Tensor) -> dict[str, Tensor]:
        """Saliency losses of ``[batch]`` windows over all prompt tokens, on states of the unpruned model.

        These states do not depend on the scorers, so they are computed once and kept, and a further pass is
        cheap. In late stages of the masked model few unprotected tokens are living, so the scorers of these
        stages learn about unprotected tokens mainly here.
        """
        states = torch.stack([self._states.prompt(window) for window in windows.tolist()], 1)
        states = states.to(self.lm.device)
        indices = torch.arange(states.shape[2], device=states.device).expand(states.shape[1:3])
        scores = [self._scorer(stage, rows, indices) for stage, rows in enumerate(states)]
        return self._saliency_losses(windows, scores, [indices] * len(scores))

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
        print(f"training resumes after {len(self.history)} of {self.steps} steps", file=sys.stderr)
        return True

    def _decay(self, step: int) -> float:
        """Learning rate of a step over the spec's: cosine decays, of the warm-up and of the masked steps."""
        boundary = self.warmup_steps
        first, end, rate = (0, boundary, 1.0) if step < boundary else (boundary, self.steps, MASKED_RATE)
        return rate * (1 + math.cos(math.pi * (step - first) / (end - first))) / 2

    def _saliency_losses(
        self, windows: Tensor, scores: list[Tensor], indices: list[Tensor]
    ) -> dict[str, Tensor]:
        """Regression (eq. 4) and ranking loss, means over stages and ``[batch]`` windows.

        Losses of weight zero are not computed. Stages without a saliency (`SaliencyTarget.stages`) do not
        count.

        Args:
            windows: ``[batch]`` int64.
            scores: Per stage ``[batch, rows]``, of the living tokens.
            indices: Per stage ``[batch, rows]`` int64, which tokens of the prompts these are.
        """
        weights, measure = self.spec.losses, self.table.spec.target.measure
        terms: dict[str, list[Tensor]] = {}
        for stage in range(self._saliency_stages):
            saliency = self.table.saliency[windows, stage].to(self.lm.device).gather(1, indices[stage])
            if weights.mse:
                targets = regression_targets(saliency, torch.ones_like(saliency, dtype=torch.bool), measure)
                terms.setdefault("mse", []).append(F.mse_loss(scores[stage], targets))
            if weights.ranking:
                terms.setdefault("ranking", []).append(ranking_loss(scores[stage], saliency))
        return {name: torch.stack(stages).mean() for name, stages in terms.items()}

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
    return Pruner(lm.config.hidden_size, spec.width, len(spec.layers), spec.distance).to(lm.device)
