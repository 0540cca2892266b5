"""Training of a distilled draft: its join in closed form, then by gradients over several drafted tokens."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from tqdm import tqdm

from ablations.core.errors import UserError
from ablations.dynatree.distilling.model import DistilledDraft, frequent_tokens, joined_inputs
from ablations.dynatree.distilling.sequences import TeacherSequences
from ablations.dynatree.distilling.unroll import UnrolledCache, unrolled_mask
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.distil import DistilSpec
from ablations.specs.userfiles import user_path

WARMUP_STEPS = 30
CLIP = 1.0
# Weight of the loss on the target's most probable token, the only one that greedy verification accepts.
FIRST_CHOICE = 0.5
RIDGE = 10.0
RIDGE_BATCH = 32


class DraftTrainer:
    """Trains one draft.

    Args:
        target: The model that generated the sequences; its embeddings and head are used.
        spec: Settings of the training.
        counts: ``[vocabulary]``, number of occurrences of each token.

    Raises:
        UserError: the file to start from is not a draft, or a draft for another target or vocabulary.
    """

    def __init__(self, target: LayeredLM, spec: DistilSpec, counts: Tensor) -> None:
        torch.manual_seed(spec.seed)
        if spec.start is None:
            tokens = frequent_tokens(counts, spec.vocabulary).to(target.device)
            self.draft = DistilledDraft.for_target(target, tokens)
        else:
            self.draft = load_draft(user_path(spec.start), target, spec.vocabulary)
            tokens = self.draft.tokens
        self._target = target
        self._spec = spec
        # Row of each token of the target in the draft's head; -1 for tokens without a row.
        self._head_rows = torch.full((len(counts),), -1, device=target.device)
        self._head_rows[tokens] = torch.arange(len(tokens), device=target.device)

    @torch.no_grad()
    def fit_join(self, sequences: TeacherSequences) -> None:
        """Set the join to the ridge regression of the target's next state on the rows' inputs.

        The closed form replaces most of the training: trained from random weights for two minutes, a draft
        agrees with the target less often than this draft before its first step.
        """
        hidden = self.draft.config.hidden_size
        gram = torch.zeros(2 * hidden, 2 * hidden, device=self._target.device)
        moment = torch.zeros(2 * hidden, hidden, device=self._target.device)
        for start in range(0, len(sequences), RIDGE_BATCH):
            batch = sequences[start : start + RIDGE_BATCH].to(self._target.device)
            embedded = self._target.embed(batch.ids[:, 1:-1])
            rows = joined_inputs(batch.states[:, :-1].float(), embedded).flatten(0, 1)
            gram += rows.T @ rows
            moment += rows.T @ batch.states[:, 1:].float().flatten(0, 1)
        gram.diagonal().add_(RIDGE)
        self.draft.join.weight.copy_(torch.linalg.solve(gram, moment).T)

    def train(self, sequences: TeacherSequences) -> float:
        """Run all epochs; return the mean loss of the last one.

        Raises:
            UserError: a loss is NaN or infinite.
        """
        spec = self._spec
        generator = torch.Generator().manual_seed(spec.seed)
        steps = spec.epochs * -(-len(sequences) // spec.batch)
        optimisers, schedules = self._optimisers(steps)
        parameters = [weight for weight in self.draft.parameters() if weight.requires_grad]
        with tqdm(total=spec.epochs * len(sequences), desc="distil", mininterval=2) as bar:
            for _ in range(spec.epochs):
                losses = []
                for rows in torch.randperm(len(sequences), generator=generator).split(spec.batch):
                    loss = self._loss(sequences[rows].to(self._target.device))
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
    def agreement(self, sequences: TeacherSequences) -> list[float]:
        """Share of the generated tokens that the draft ranks first, by the number of tokens drafted before.

        The tokens before are the target's, so these are acceptance rates given that all tokens before were
        accepted, if rounds began at every position equally often.

        Raises:
            UserError: a logit is NaN or infinite.
        """
        agreeing = torch.zeros(self._spec.unroll)
        total = 0
        for start in range(0, len(sequences), self._spec.batch):
            batch = sequences[start : start + self._spec.batch].to(self._target.device)
            generated = batch.generated[:, 2:]
            expected = self._head_rows[batch.ids[:, 2:][generated]]
            total += len(expected)
            for step, states in enumerate(self._unroll(batch)):
                logits = self._logits(states[generated])
                if not logits.isfinite().all():
                    raise UserError(
                        "distil: logits of the draft are NaN or infinite; lower 'learning_rate' or use"
                        " compute.dtype float32"
                    )
                agreeing[step] += (logits.argmax(dim=1) == expected).sum().item()
        return (agreeing / max(total, 1)).tolist()

    def known_share(self, sequences: TeacherSequences) -> float:
        """Share of the generated tokens with a row in the draft's head, an upper bound of the agreement."""
        ids = sequences.ids[sequences.generated].to(self._head_rows.device)
        return (self._head_rows[ids] >= 0).float().mean().item()

    def _optimisers(self, steps: int) -> tuple[list[Optimizer], list[LRScheduler]]:
        spec = self._spec
        trained = [weight for weight in self.draft.parameters() if weight.requires_grad]
        matrices = [weight for weight in trained if weight.dim() == 2]
        vectors = [weight for weight in trained if weight.dim() != 2]
        optimisers = [
            # Muon (Jordan et al., 2024): with AdamW, drafts were accepted less often after the same steps.
            Muon(matrices, lr=spec.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            AdamW(vectors, lr=spec.learning_rate, weight_decay=0.0),
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

    def _loss(self, sequences: TeacherSequences) -> Tensor:
        """Cross-entropy to the target's distribution over the draft's tokens, at the learned tokens."""
        mask = sequences.learned[:, 2:] & (self._head_rows[sequences.ids[:, 2:]] >= 0)
        with torch.no_grad():
            target_probabilities = self._logits(sequences.states[:, 1:][mask]).softmax(dim=1)
            first = target_probabilities.argmax(dim=1)
        total, weights = 0.0, 0.0
        for step, states in enumerate(self._unroll(sequences)):
            log_probabilities = self._logits(states[mask]).log_softmax(dim=1)
            soft_loss = -(target_probabilities * log_probabilities).sum()
            hard_loss = F.nll_loss(log_probabilities, first, reduction="sum")
            weight = self._spec.decay**step
            total = total + weight * ((1 - FIRST_CHOICE) * soft_loss + FIRST_CHOICE * hard_loss)
            weights += weight
        return total / (weights * max(1, len(first)))

    def _unroll(self, sequences: TeacherSequences) -> Iterator[Tensor]:
        """Predicted states ``[batch, rows, hidden]`` of the first drafted token, the second, and so on.

        Row i predicts the state of token i + 2. Its input is the target's state after token i for the first
        drafted token, and the draft's prediction at the row before for later ones.
        """
        device = sequences.ids.device
        embedded = self._target.embed(sequences.ids[:, 1:-1])
        rows = embedded.shape[1]
        positions = torch.arange(rows, device=device)[None]
        cache = UnrolledCache()
        states = sequences.states[:, :-1].float()
        for step in range(self._spec.unroll):
            mask = unrolled_mask(rows, step, device)
            with self._autocast():
                predicted = self.draft(states, embedded, positions, mask, cache)
            yield predicted
            # The first row has no row before it; it gets zeros, since no learned token depends on it.
            states = F.pad(predicted[:, :-1], (0, 0, 1, 0)).float()

    def _logits(self, states: Tensor) -> Tensor:
        with self._autocast():
            return self.draft.head(states.float()).float()

    def _autocast(self) -> torch.autocast:
        dtype = getattr(torch, self._spec.compute.dtype)
        return torch.autocast(self._target.device.type, dtype, enabled=dtype != torch.float32)


def load_draft(path: Path, target: LayeredLM, vocabulary: int) -> DistilledDraft:
    """Read a draft, ready for training.

    Args:
        path: Its file.
        target: Its target.
        vocabulary: Tokens that its head should know.

    Raises:
        UserError: the file is not a draft, or a draft for another target or vocabulary.
    """
    draft = DistilledDraft.load(path, target)
    if len(draft.tokens) != vocabulary:
        raise UserError(
            f"distil.vocabulary: {vocabulary} tokens, but {path} knows {len(draft.tokens)}; make them agree"
        )
    draft.requires_grad_(True)
    draft.head.requires_grad_(False)
    return draft
