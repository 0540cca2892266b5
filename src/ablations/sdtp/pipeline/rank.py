"""One rank's part of a prefill and of the teacher-forced continuation after it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import synchronise
from ablations.sdtp.pipeline.group import Peer
from ablations.sdtp.pipeline.partition import LayerRange
from ablations.sdtp.pipeline.traffic import boundary_bytes, receive, send
from ablations.sdtp.pruned.continuation import continue_layers
from ablations.sdtp.pruned.living import LivingPrompt, Scorer, embed_prompt
from ablations.sdtp.pruned.prefill import Prefilled, finish, run_layers
from ablations.sdtp.pruned.pruning import Pruning


@dataclass(frozen=True)
class RankPrefill:
    """One rank's part of one prefill.

    Attributes:
        prefilled: Result of the prefill; None except on the last rank.
        sent_bytes: Bytes of the hidden states sent to the next rank; 0 on the last rank.
        busy: Seconds of computing, the device's work included.
        position_offsets: Position offsets of this rank's layers (`LivingPrompt.position_offsets`).
    """

    prefilled: Prefilled | None
    sent_bytes: int
    busy: float
    position_offsets: Mapping[int, int]


class Rank:
    """One process of a pipeline and its layers of the model.

    Prompts run one at a time, each in one piece (no micro-batches): while one rank computes the others are
    idle, and their idle time is measured. Each process loads the whole checkpoint and runs its layers.

    With top-k, row counts follow from lengths alone, so a receiver knows the shape of what it receives.

    Args:
        peer: This process.
        lm: Model.
    """

    def __init__(self, peer: Peer, lm: LayeredLM) -> None:
        self.peer = peer
        self.lm = lm

    @torch.inference_mode()
    def prefill(
        self, ids: Tensor, pruning: Pruning, layer_range: LayerRange, scorer: Scorer, cache: StaticCache
    ) -> RankPrefill:
        """Run this rank's layers and stages on a prompt; all ranks must call it together.

        Hidden states are sent in the model's dtype, followed by the prompt indices of their tokens (eight
        bytes each, not counted in `sent_bytes`).

        Args:
            ids: ``[tokens]`` int64 prompt, on this rank's device.
            pruning: Pruning with hard mask, cascade and top-k.
            layer_range: Layers and stages of this rank.
            scorer: Importance of the candidates.
            cache: Emptied first; takes keys and values of this rank's layers.

        Raises:
            AssertionError: the bytes sent are not tokens x hidden x bytes per element.
            LostRankError: another rank ended.
        """
        peer, tokens = self.peer, ids.shape[0]
        living_after = (tokens, *pruning.counts(tokens))
        cache.truncate(0)
        if peer.rank:
            rows = living_after[layer_range.stages.start]
            states = self._receive_states(rows)
            kept = receive((rows,), torch.int64, self.lm.device, peer.rank - 1)
        synchronise(self.lm.device)
        start = time.perf_counter()
        if peer.rank:
            living = LivingPrompt(self.lm, pruning, tokens, states, kept, layer_range.stages.start)
        else:
            living = embed_prompt(self.lm, pruning, ids)
        run_layers(living, layer_range.layers, scorer, cache)
        if living.stages < layer_range.stages.stop:
            # The stage at the next rank's first layer, so that only its survivors are sent.
            living.prune(scorer)
        prefilled = finish(living) if peer.last else None
        synchronise(self.lm.device)
        busy = time.perf_counter() - start
        if peer.last:
            return RankPrefill(prefilled, 0, busy, living.position_offsets)
        sent = send(living.hidden, peer.rank + 1)
        send(living.kept, peer.rank + 1)
        sent_rows = living_after[layer_range.stages.stop]
        expected = boundary_bytes(sent_rows, self.lm.config.hidden_size, self.lm.dtype)
        if sent != expected:
            raise AssertionError(f"{sent} bytes of hidden states crossed, {expected} by the formula")
        return RankPrefill(None, sent, busy, living.position_offsets)

    @torch.inference_mode()
    def continuation_states(
        self, rank_prefill: RankPrefill, ids: Tensor, layer_range: LayerRange, cache: StaticCache
    ) -> Tensor | None:
        """Run this rank's layers of `continuation.continuation_states`; all ranks must call it together.

        Args:
            rank_prefill: This rank's part of the prefill before.
            ids: ``[tokens]`` int64 continuation, on this rank's device.
            layer_range: Layers and stages of this rank.
            cache: Cache of that prefill; it grows.

        Returns:
            ``[tokens, hidden]`` on the last rank, None on the others.
        """
        peer, rows = self.peer, ids.shape[0] - 1
        states = [rank_prefill.prefilled.state[None]] if peer.last else []
        if rows:
            hidden = self._receive_states(rows) if peer.rank else self.lm.embed(ids[None, :-1])
            offsets = rank_prefill.position_offsets
            hidden = continue_layers(self.lm, hidden, layer_range.layers, offsets, cache)
            if not peer.last:
                send(hidden, peer.rank + 1)
            states.append(hidden[0])
        return torch.cat(states) if peer.last else None

    def _receive_states(self, rows: int) -> Tensor:
        shape = (1, rows, self.lm.config.hidden_size)
        return receive(shape, self.lm.dtype, self.lm.device, self.peer.rank - 1)
