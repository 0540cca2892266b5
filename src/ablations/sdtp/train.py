"""Job `train_pruner`: learn to score tokens, the language model frozen (arXiv 2504.04514, section 3)."""

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.utils import get_total_norm
from tqdm import tqdm

from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.lm.layered import LayeredLM
from ablations.sdtp.losses import lm_loss, ranking_loss, regression_loss, regression_targets, require_finite
from ablations.sdtp.masks import Masked, masked_forward, sample_keep
from ablations.sdtp.pruner import PRUNER_FILE, Pruner, save_pruner
from ablations.sdtp.selection import require_layers, stage_counts
from ablations.sdtp.table import SaliencyTable, read_saliency
from ablations.study.artefact import new_artefact
from ablations.study.contracts.sdtp import Preserve, PrunerSpec
from ablations.study.errors import UserError
from ablations.study.job import Run, main

# Largest norm of one loss's gradient on one window.
CLIP = 1.0


class Trainer:
    """Trains the scorers of one pruner on the windows of one saliency table."""

    def __init__(self, lm: LayeredLM, spec: PrunerSpec, table: SaliencyTable) -> None:
        torch.manual_seed(spec.seed)
        self.pruner = Pruner(lm.config.hidden_size, spec.width, len(spec.layers)).to(lm.device)
        self.lm = lm
        self.spec = spec
        self.table = table
        self.prompt = table.ids.shape[1] - table.spec.continuation_tokens
        self.counts = stage_counts(self.prompt, spec.keep_ratios, spec.preserve)
        self.noise = torch.Generator(lm.device).manual_seed(spec.seed)

    def train(self) -> dict[str, float]:
        """Run all epochs (AdamW, cosine decay, clipped gradients); return the last epoch's mean losses.

        Raises:
            UserError: a loss is NaN or infinite.
        """
        spec = self.spec
        windows = (~self.table.validation).nonzero()[:, 0]
        order = torch.Generator().manual_seed(spec.seed)
        steps = spec.epochs * -(-len(windows) // spec.batch)
        optimiser = torch.optim.AdamW(self.pruner.parameters(), lr=spec.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        with tqdm(total=spec.epochs * len(windows), desc="train pruner", mininterval=2) as bar:
            for _ in range(spec.epochs):
                seen: list[dict[str, float]] = []
                for batch in windows[torch.randperm(len(windows), generator=order)].split(spec.batch):
                    for window in batch.tolist():
                        losses = self.losses(window)
                        seen.append({name: loss.item() for name, loss in losses.items()})
                        require_finite(seen[-1], bar.n)
                        self._add_gradients(losses, 1 / len(batch))
                        bar.set_postfix(seen[-1], refresh=False)
                        bar.update()
                    optimiser.step()
                    optimiser.zero_grad()
                    schedule.step()
        return {name: sum(row[name] for row in seen) / len(seen) for name in seen[0]}

    def losses(self, window: int) -> dict[str, Tensor]:
        """Losses of one window through the masked model; those of weight zero are not computed."""
        weights = self.spec.losses
        ids = self.table.ids[window].to(self.lm.device)
        with torch.set_grad_enabled(weights.lm > 0):
            masked = masked_forward(self.lm, ids, self.spec.layers, self._keep)
        losses = {}
        if weights.lm > 0:
            logits = self.lm.head(masked.hidden[None, self.prompt - 1 : -1])[0]
            losses["lm"] = lm_loss(logits, ids[self.prompt :])
        if weights.mse > 0 or weights.ranking > 0:
            scores = self._scores(masked)
            living = masked.living[:, : self.prompt]
            saliency = self.table.saliency[window, :, : self.prompt].to(self.lm.device)
            if weights.mse > 0:
                losses["mse"] = regression_loss(scores, regression_targets(saliency, living), living)
            if weights.ranking > 0:
                losses["ranking"] = ranking_loss(scores, saliency, living)
        return losses

    @torch.no_grad()
    def rank_correlation(self) -> list[float]:
        """Spearman correlation of score and saliency per stage, a mean over validation windows.

        Both are taken from the unpruned model, over the prompt's tokens.
        """
        found = []
        for window in self.table.validation.nonzero()[:, 0].tolist():
            ids = self.table.ids[window].to(self.lm.device)
            masked = masked_forward(self.lm, ids, self.spec.layers, lambda stage, states, visible: visible)
            scores = self._scores(masked).cpu().numpy()
            saliency = self.table.saliency[window, :, : self.prompt].numpy()
            found.append([spearmanr(a, b).statistic for a, b in zip(scores, saliency, strict=True)])
        return torch.tensor(found).mean(0).tolist()

    def _add_gradients(self, losses: dict[str, Tensor], share: float) -> None:
        """Add each loss's weighted gradient, clipped by itself, to the parameters' gradients.

        Clipped together, the LM loss would drown the others: its gradient has little in common from
        window to window, and grows by an order of magnitude with the inverse of the temperature and
        where an attention sink was dropped.
        """
        parameters = list(self.pruner.parameters())
        for name, loss in losses.items():
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True, retain_graph=True)
            norm = get_total_norm(gradients)
            factor = getattr(self.spec.losses, name) * share * (CLIP / norm).clamp(max=1.0)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                grad = factor * gradient
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad

    def _scores(self, masked: Masked) -> Tensor:
        """Keep logits ``[stages, prompt]`` of the states that a forward collected."""
        return torch.stack(
            [self.pruner(stage, states[: self.prompt]) for stage, states in enumerate(masked.states)]
        )

    def _keep(self, stage: int, states: Tensor, visible: Tensor) -> Tensor:
        drawn = sample_keep(
            self.pruner(stage, states[: self.prompt]),
            visible[: self.prompt],
            self.counts[stage],
            self.spec.preserve,
            self.spec.temperature,
            self.noise,
        )
        return torch.cat([drawn, torch.ones_like(visible[self.prompt :])])


def train_pruner(run: Run[PrunerSpec]) -> None:
    """Train a pruner on a saliency table and write it.

    Raises:
        UserError: float16, no loss, layers that table or model lack, windows too short, or a training that
            diverges.
    """
    spec = run.spec
    if spec.compute.dtype == "float16":
        raise UserError("compute.dtype: float16 gradients underflow; use bfloat16 or float32")
    if not (spec.losses.lm or spec.losses.mse or spec.losses.ranking):
        raise UserError("losses: all weights are zero, so nothing would be trained; raise one")
    device = configure(spec.compute)
    table = read_saliency(run.job.path("saliency"), spec.layers)
    _require_prompt(table, spec.preserve)
    lm = load_model(run.job.path("model"), spec.compute, device)
    require_layers(spec.layers, lm.num_layers)
    trainer = Trainer(lm, spec, table)
    untrained = trainer.rank_correlation()
    losses = trainer.train()
    facts = {
        "saliency": table.spec.model_dump(mode="json"),
        "losses": losses,
        "spearman": trainer.rank_correlation(),
        "spearman_untrained": untrained,
        "prompt_tokens": trainer.prompt,
        "living": list(trainer.counts),
        "parameters": sum(parameter.numel() for parameter in trainer.pruner.parameters()),
        "seconds": run.seconds,
    }
    with new_artefact(run, facts) as folder:
        save_pruner(folder / PRUNER_FILE, trainer.pruner, spec)


def _require_prompt(table: SaliencyTable, preserve: Preserve) -> None:
    tokens = table.ids.shape[1]
    taken = table.spec.continuation_tokens + preserve.head + preserve.tail
    if tokens <= taken:
        raise UserError(
            f"saliency.tokens: {tokens} tokens leave nothing to prune beside continuation, head and tail"
            f" ({taken} tokens); raise it or lower saliency.continuation_tokens or preserve"
        )


if __name__ == "__main__":
    main("ablations.sdtp.train", PrunerSpec, train_pruner, __doc__)
