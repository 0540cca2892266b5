"""Replays: what they count is what decoding does, and side by side prompts continue as they do alone."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.core.block import read_series
from ablations.core.job import Run, read_job
from ablations.core.panel import Member, Panel
from ablations.core.record import Record
from ablations.dynatree.decoding import decode_autoregressive
from ablations.dynatree.replay_arms import replay_arms
from ablations.dynatree.traces import BATCH, greedy_traces
from ablations.lm.corpus import Window
from ablations.specs.dynatree.replay import Replay, ReplaySeries, ReplayTotals
from tests.dynatree.noisy_models import VOCABULARY, tiny_model
from tests.dynatree.test_all_arms import end_at
from tests.dynatree.test_jobs import ARMS, arm_spec, folder, inputs  # noqa: F401
from tests.dynatree.workspace import NEW_TOKENS, PROMPTS, decoded, write_job

LIMIT = 20


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "qwen2", "mistral"])
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=BATCH + 5),
    seed=st.integers(0, 1000),
    end=st.none() | st.integers(0, VOCABULARY - 1),
)
def test_prompts_continue_side_by_side_as_alone(architecture, lengths, seed, end):
    target = tiny_model(architecture)
    end_at(target, end)
    generator = torch.Generator().manual_seed(seed)
    windows = [
        Window(str(place), "k", torch.randint(VOCABULARY, (length,), generator=generator))
        for place, length in enumerate(lengths)
    ]
    traces = list(greedy_traces(target, windows, LIMIT))
    assert [trace.window for trace in traces] == windows
    for trace in traces:
        cache = target.new_cache(len(trace.prompt) + LIMIT)
        assert trace.greedy == decode_autoregressive(target, cache, trace.prompt, LIMIT).tokens
        ids = torch.tensor([trace.prompt + trace.greedy[:-1]])
        expected = target.states(ids, torch.arange(ids.shape[1])[None])[0]
        torch.testing.assert_close(trace.states, expected, atol=1e-4, rtol=1e-4)
        # The prefill is the very forward of decoding, to the last bit.
        rows = len(trace.prompt)
        alone = target.states(ids[:, :rows], torch.arange(rows)[None], None, target.new_cache(rows))[0]
        assert torch.equal(trace.states[:rows], alone)


def replayed(folder: Path, inputs: dict[str, Path], name: str, spans, **changes) -> Member:  # noqa: F811
    full = arm_spec(name) | changes
    spec = {key: full[key] for key in ReplaySeries.model_fields if key in full}
    job = read_job(write_job(folder, f"replay-{name}", spec, inputs), ReplaySeries)
    return Member(Run(job, folder / f"replay-{name}-{full['new_tokens']}.blocks", name), spans)


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm[0] is not None])
def test_a_replayed_arm_counts_what_decoding_counts(name, folder, inputs):  # noqa: F811
    member = replayed(folder, inputs, name, [(0, 1), (1, PROMPTS)])
    replay_arms(Panel([member]))
    assert member.failure is None
    found = read_series(member.run.out, PROMPTS, Record[ReplaySeries, Replay, ReplayTotals]).samples
    block = decoded(folder, f"as-{name}", arm_spec(name), inputs)
    for replay, sample in zip(found, block.samples, strict=True):
        for key in ("document", "kind", "prompt_tokens", "new_tokens", "repeated_4grams"):
            assert getattr(replay, key) == getattr(sample, key)
        assert replay.drafted_per_round == sample.drafted_per_round
        assert replay.accepted_per_round == sample.accepted_per_round
        assert sum(map(len, replay.levels_per_round)) == sample.draft_forwards
        assert not any(replay.alone_per_round)


def test_an_arm_of_bad_input_fails_alone(folder, inputs):  # noqa: F811
    names = [name for name, arm in ARMS.items() if arm[0] is not None][:2]
    bad = replayed(folder, inputs, names[0], [(0, 1)], new_tokens=4080)
    fine = replayed(folder, inputs, names[1], [(0, 1)], new_tokens=NEW_TOKENS - 1)
    replay_arms(Panel([bad, fine]))
    assert "4080 new ones exceed the target's 4096 positions" in bad.failure
    assert fine.failure is None
    assert not fine.wanted()
