"""One rank's share of a prefill and of the teacher-forced continuation after it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import synchronise
from ablations.sdtp.pipeline.group import Member
from ablations.sdtp.pipeline.partition import Part
from ablations.sdtp.pipeline.traffic import boundary_bytes, receive, send
from ablations.sdtp.pruned.continuation import continue_layers
from ablations.sdtp.pruned.living import Living, Scorer, begin
from ablations.sdtp.pruned.prefill import Prefilled, finish, run_layers
from ablations.sdtp.pruned.pruning import Pruning


@dataclass(frozen=True)
class Passed:
    """One rank's share of one prefill.

    Attributes:
        prefilled: What the prefill leaves behind; None except on the last rank.
        sent_bytes: Bytes of the hidden states handed to the next rank; 0 on the last one.
        busy: Seconds of computing, the device's work included.
        position_offsets: Of this rank's layers (`Living.position_offsets`).
    """

    prefilled: Prefilled | None
    sent_bytes: int
    busy: float
    position_offsets: Mapping[int, int]


class Rank:
    """One process of a pipeline and its layers of the model.

    One prompt is under way at a time, in one piece (no micro-batches): while one rank works the others have
    nothing to do, which their idle time shows. Each process holds the whole checkpoint and runs its part.

    Row counts follow from lengths alone (top-k), so a receiver knows the shape of what it is sent.

    Args:
        member: This process.
        lm: Model.
    """

    def __init__(self, member: Member, lm: LayeredLM) -> None:
        self.member = member
        self.lm = lm

    @torch.inference_mode()
    def prefill(
        self, ids: Tensor, pruning: Pruning, part: Part, scorer: Scorer, cache: StaticCache
    ) -> Passed:
        """Run this rank's layers and stages on a prompt; all ranks call it together.

        Hidden states cross a boundary in the model's dtype, and with them the prompt indices of their tokens
        (eight bytes each, which `sent_bytes` leaves out).

        Args:
            ids: ``[tokens]`` int64 prompt, on this rank's device.
            pruning: Where and how much to prune: hard mask, cascade, top-k.
            part: What this rank runs.
            scorer: Importance of the candidates.
            cache: Emptied first; takes keys and values of this rank's layers.

        Raises:
            AssertionError: the bytes sent are not tokens x hidden x bytes per element.
            UserError: another rank ended.
        """
        member, tokens = self.member, ids.shape[0]
        living_after = (tokens, *pruning.counts(tokens))
        cache.truncate(0)
        if member.rank:
            rows = living_after[part.stages.start]
            states = self._receive_states(rows)
            kept = receive((rows,), torch.int64, self.lm.device, member.rank - 1)
        synchronise(self.lm.device)
        start = time.perf_counter()
        if member.rank:
            living = Living(self.lm, pruning, tokens, states, kept, part.stages.start)
        else:
            living = begin(self.lm, pruning, ids)
        run_layers(living, part.layers, scorer, cache)
        if living.stages < part.stages.stop:
            # The stage at the next rank's first layer: only its survivors cross.
            living.prune(scorer)
        prefilled = finish(living) if member.last else None
        synchronise(self.lm.device)
        busy = time.perf_counter() - start
        if member.last:
            return Passed(prefilled, 0, busy, living.position_offsets)
        sent = send(living.hidden, member.rank + 1)
        send(living.kept, member.rank + 1)
        expected = boundary_bytes(living_after[part.stages.stop], self.lm.config.hidden_size, self.lm.dtype)
        if sent != expected:
            raise AssertionError(f"{sent} bytes of hidden states crossed, {expected} by the formula")
        return Passed(None, sent, busy, living.position_offsets)

    @torch.inference_mode()
    def continuation_states(
        self, passed: Passed, ids: Tensor, part: Part, cache: StaticCache
    ) -> Tensor | None:
        """This rank's share of `continuation.continuation_states`; all ranks call it after a prefill.

        Args:
            passed: This rank's share of that prefill.
            ids: ``[tokens]`` int64 continuation, on this rank's device.
            part: What this rank runs.
            cache: Of that prefill; it grows.

        Returns:
            ``[tokens, hidden]`` on the last rank, None on the others.
        """
        member, rows = self.member, ids.shape[0] - 1
        found = [passed.prefilled.state[None]] if member.last else []
        if rows:
            hidden = self._receive_states(rows) if member.rank else self.lm.embed(ids[None, :-1])
            hidden = continue_layers(self.lm, hidden, part.layers, passed.position_offsets, cache)
            if not member.last:
                send(hidden, member.rank + 1)
            found.append(hidden[0])
        return torch.cat(found) if member.last else None

    def _receive_states(self, rows: int) -> Tensor:
        shape = (1, rows, self.lm.config.hidden_size)
        return receive(shape, self.lm.dtype, self.lm.device, self.member.rank - 1)
