"""What synthetic records have in common."""

import hashlib
from typing import Any

import numpy as np

from ablations.core.record import Digests, Environment, Outcome


def record_of(kind: type, name: str, spec: Any, outcome: Outcome, samples: tuple, totals: Any) -> Any:
    return kind(
        label=name,
        module="synthetic",
        spec=spec,
        outcome=outcome,
        samples=samples,
        totals=totals,
        environment=environment(),
        digests=digests(name),
    )


def environment() -> Environment:
    return Environment(
        measured_at="2025-01-01T00:00:00+00:00",
        seconds=100.0,
        host="00000000",
        device="Synthetic CPU @ 2.00GHz",
        device_type="cpu",
        threads=1,
        dtype="float32",
        platform="Linux x86_64",
        versions={"python": "3.11.0", "torch": "2.13.0", "transformers": "5.23.0"},
        git_commit="0123456789abcdef0123456789abcdef01234567",
        git_dirty=False,
    )


def digests(name: str) -> Digests:
    return Digests(
        job=hashlib.sha256(name.encode()).hexdigest()[:16],
        spec="0" * 16,
        code="0" * 16,
        inputs={"text": "t"},
        pins={},
    )


def crash() -> Outcome:
    return Outcome(
        status="crashed",
        exception="RuntimeError",
        message="The size of tensor a (716) must match the size of tensor b (1024) at dimension 2",
        place="apply_rotary_pos_emb in transformers.models.llama.modeling_llama",
    )


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]))
