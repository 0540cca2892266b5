"""Training of a distilled draft: its join in closed form, then gradients through several drafted tokens."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from tqdm import tqdm

from ablations.dynatree.distilling.lessons import Lessons
from ablations.dynatree.distilling.model import DistilledDraft, frequent_tokens, joined_inputs
from ablations.dynatree.distilling.unroll import GrownRows, unrolled_mask
from ablations.lm.layered import LayeredLM
from ablations.study.contracts.dynatree import DistilSpec
from ablations.study.errors import UserError
from ablations.study.userfiles import user_path

WARMUP_STEPS = 30
CLIP = 1.0
# Share of the loss that looks at the target's first choice alone: greedy verification asks for nothing else.
FIRST_CHOICE = 0.5
RIDGE = 10.0
RIDGE_BATCH = 32


class Trainer:
    """Trains one draft.

    Args:
        target: The model that wrote the lessons; lends embeddings and head.
        spec: How to train.
        counts: ``[vocabulary]``, how often each token occurs.

    Raises:
        UserError: the draft to start from is none, or not one of this target with this vocabulary.
    """

    def __init__(self, target: LayeredLM, spec: DistilSpec, counts: Tensor) -> None:
        torch.manual_seed(spec.seed)
        if spec.start is None:
            tokens = frequent_tokens(counts, spec.vocabulary).to(target.device)
            self.draft = DistilledDraft.for_target(target, tokens)
        else:
            self.draft = _loaded(user_path(spec.start), target, spec.vocabulary)
            tokens = self.draft.tokens
        self._target = target
        self._spec = spec
        # Place of each token of the target in the draft's head; -1 where it has none.
        self._places = torch.full((len(counts),), -1, device=target.device)
        self._places[tokens] = torch.arange(len(tokens), device=target.device)

    @torch.no_grad()
    def fit_join(self, lessons: Lessons) -> None:
        """Set the join to the ridge regression of the target's next state on the rows' inputs.

        It has a closed form, and takes the place of most of the training: from random weights a draft
        agrees with the target less after two minutes than this one before the first step.
        """
        hidden = self.draft.config.hidden_size
        gram = torch.zeros(2 * hidden, 2 * hidden, device=self._target.device)
        moment = torch.zeros(2 * hidden, hidden, device=self._target.device)
        for start in range(0, len(lessons), RIDGE_BATCH):
            part = lessons[start : start + RIDGE_BATCH].to(self._target.device)
            embedded = self._target.embed(part.ids[:, 1:-1])
            rows = joined_inputs(part.states[:, :-1].float(), embedded).flatten(0, 1)
            gram += rows.T @ rows
            moment += rows.T @ part.states[:, 1:].float().flatten(0, 1)
        gram.diagonal().add_(RIDGE)
        self.draft.join.weight.copy_(torch.linalg.solve(gram, moment).T)

    def train(self, lessons: Lessons) -> float:
        """Run all epochs; return the mean loss of the last one.

        Raises:
            UserError: a loss is NaN or infinite.
        """
        spec = self._spec
        order = torch.Generator().manual_seed(spec.seed)
        steps = spec.epochs * -(-len(lessons) // spec.batch)
        optimisers, schedules = self._optimisers(steps)
        parameters = [weight for weight in self.draft.parameters() if weight.requires_grad]
        with tqdm(total=spec.epochs * len(lessons), desc="distil", mininterval=2) as bar:
            for _ in range(spec.epochs):
                losses = []
                for rows in torch.randperm(len(lessons), generator=order).split(spec.batch):
                    loss = self._loss(lessons[rows].to(self._target.device))
                    losses.append(loss.item())
                    if not torch.tensor(losses[-1]).isfinite():
                        raise UserError(
                            f"distil: the loss is {losses[-1]} after {bar.n} sequences; lower 'learning_rate'"
                        )
                    loss.backward()
                    nn.utils.clip_grad_norm_(parameters, CLIP)
                    for optimiser, schedule in zip(optimisers, schedules, strict=True):
                        optimiser.step()
                        optimiser.zero_grad()
                        schedule.step()
                    bar.set_postfix(loss=losses[-1], refresh=False)
                    bar.update(len(rows))
        return sum(losses) / len(losses)

    @torch.no_grad()
    def agreement(self, lessons: Lessons) -> list[float]:
        """Share of the written tokens that the draft names first, by how many it drafted before.

        The tokens before are the target's: these are acceptances on the condition that all tokens
        before were accepted, were every place as likely to begin a round.

        Raises:
            UserError: a logit is NaN or infinite.
        """
        right = torch.zeros(self._spec.unroll)
        seen = 0
        for start in range(0, len(lessons), self._spec.batch):
            part = lessons[start : start + self._spec.batch].to(self._target.device)
            chosen = part.written[:, 2:]
            wanted = self._places[part.ids[:, 2:][chosen]]
            seen += len(wanted)
            for step, states in enumerate(self._unroll(part)):
                logits = self._logits(states[chosen])
                if not logits.isfinite().all():
                    raise UserError(
                        "distil: logits of the draft are NaN or infinite; lower 'learning_rate' or use"
                        " compute.dtype float32"
                    )
                right[step] += (logits.argmax(dim=1) == wanted).sum().item()
        return (right / max(seen, 1)).tolist()

    def known_share(self, lessons: Lessons) -> float:
        """Share of the written tokens that the draft's head knows: no draft agrees more often."""
        return (self._places[lessons.ids[lessons.written].to(self._places.device)] >= 0).float().mean().item()

    def _optimisers(self, steps: int) -> tuple[list[Optimizer], list[LRScheduler]]:
        spec = self._spec
        trained = [weight for weight in self.draft.parameters() if weight.requires_grad]
        matrices = [weight for weight in trained if weight.dim() == 2]
        others = [weight for weight in trained if weight.dim() != 2]
        optimisers = [
            # Muon (Jordan et al., 2024): after the same steps, AdamW's drafts were accepted less.
            Muon(matrices, lr=spec.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            AdamW(others, lr=spec.learning_rate, weight_decay=0.0),
        ]
        warmup = min(WARMUP_STEPS, max(1, steps // 4))
        schedules = [
            SequentialLR(
                optimiser,
                [
                    LinearLR(optimiser, 1 / warmup, total_iters=warmup),
                    CosineAnnealingLR(optimiser, max(1, steps - warmup), spec.learning_rate / 50),
                ],
                [warmup],
            )
            for optimiser in optimisers
        ]
        return optimisers, schedules

    def _loss(self, lessons: Lessons) -> Tensor:
        """Cross-entropy to the target over the draft's tokens, at the tokens that are taught."""
        chosen = lessons.taught[:, 2:] & (self._places[lessons.ids[:, 2:]] >= 0)
        with torch.no_grad():
            wanted = self._logits(lessons.states[:, 1:][chosen]).softmax(dim=1)
            first = wanted.argmax(dim=1)
        total, weights = 0.0, 0.0
        for step, states in enumerate(self._unroll(lessons)):
            found = self._logits(states[chosen]).log_softmax(dim=1)
            spread = -(wanted * found).sum()
            hit = F.nll_loss(found, first, reduction="sum")
            weight = self._spec.decay**step
            total = total + weight * ((1 - FIRST_CHOICE) * spread + FIRST_CHOICE * hit)
            weights += weight
        return total / (weights * max(1, len(first)))

    def _unroll(self, lessons: Lessons) -> Iterator[Tensor]:
        """Predicted states ``[batch, rows, hidden]`` of the first drafted token, the second, and so on.

        Row i predicts token i + 2. For the first token it stands on the target's state after token i;
        for later ones on the draft's prediction at the row before.
        """
        device = lessons.ids.device
        embedded = self._target.embed(lessons.ids[:, 1:-1])
        rows = embedded.shape[1]
        positions = torch.arange(rows, device=device)[None]
        grown = GrownRows()
        states = lessons.states[:, :-1].float()
        for step in range(self._spec.unroll):
            mask = unrolled_mask(rows, step, device)
            with self._autocast():
                predicted = self.draft(states, embedded, positions, mask, grown)
            yield predicted
            # The first row has none before it, and is not asked for again: nothing taught begins there.
            states = F.pad(predicted[:, :-1], (0, 0, 1, 0)).float()

    def _logits(self, states: Tensor) -> Tensor:
        with self._autocast():
            return self.draft.head(states.float()).float()

    def _autocast(self) -> torch.autocast:
        dtype = getattr(torch, self._spec.compute.dtype)
        return torch.autocast(self._target.device.type, dtype, enabled=dtype != torch.float32)


def _loaded(path: Path, target: LayeredLM, vocabulary: int) -> DistilledDraft:
    draft = DistilledDraft.load(path, target)
    if len(draft.tokens) != vocabulary:
        raise UserError(
            f"distil.vocabulary: {vocabulary} tokens, but {path} knows {len(draft.tokens)}; make them agree"
        )
    draft.requires_grad_(True)
    draft.head.requires_grad_(False)
    return draft
