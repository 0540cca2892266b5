"""Synthetic SDTP records and sweeps."""

import numpy as np

from ablations.core.record import Outcome
from ablations.evidence.join import SdtpRecord
from ablations.specs.lm import Compute
from ablations.specs.sdtp.calibrate import Calibration
from ablations.specs.sdtp.counts import Preserve
from ablations.specs.sdtp.evaluate import RankTime, Training
from ablations.specs.sdtp.record import EvaluateSpec, SdtpSample, SdtpTotals, Windows
from ablations.specs.sdtp.retrieval import Retrieval, RetrievalProbe, TrainingPrompts
from ablations.specs.sdtp.saliency import SaliencySpec
from ablations.specs.sdtp.sweep import Sweep, SweepPoint, SweepSpec
from ablations.specs.sdtp.timing import TimedPair, Timing
from ablations.specs.sdtp.train import PrunerSpec, Ranking
from tests.paper.design import LAYERS, Row
from tests.paper.synthetic_common import crash, digests, environment, record_of, rng

PROMPT = 1024
HIDDEN_BYTES = 576 * 2
HELDOUT = 12


def sdtp_record(name: str, documents: int, row: Row, seed: int = 0) -> SdtpRecord:
    base = {
        "importance": "learned",
        "layers": LAYERS,
        "keep_ratios": (0.7,) * 10,
        "match": None,
        "preserve": Preserve(),
        "positions": "original",
        "mask": "hard",
        "propagation": "cascade",
        "selection": "top_k",
        "saliency": None,
        "pipeline": None,
        "windows": Windows(documents=documents, prompt_tokens=PROMPT, continuation_tokens=64),
        "retrieval": Retrieval(tokens=256, count=documents),
        "timing": Timing(documents=max(1, documents // 4 * 3), repeats=3)
        if seed == 0 and row.timed
        else None,
        "seed": seed,
        "compute": Compute(),
    }
    chosen = {**base, **row.spec}
    # Retrieval is not measured over ranks.
    spec = EvaluateSpec(**chosen | ({"retrieval": None} if chosen["pipeline"] else {}))
    if row.crashed:
        return record_of(SdtpRecord, name, spec, crash(), (), None)
    shared = np.random.default_rng(0)
    levels = shared.normal(2.2, 0.5, documents).round(6)
    sensitivity = shared.normal(0.0, 0.12, documents)
    own, other, second = rng(name + "+" * seed), rng(f"{name} {seed}"), rng(f"{name} again")
    living = _living(spec)
    drift = 0.0 if seed == 0 else float(own.normal(0, 0.02))
    samples = []
    for index in range(documents):
        reference = float(levels[index])
        nll = round(reference + row.added + drift + float(sensitivity[index]) + float(own.normal(0, 0.08)), 6)
        pairs, ranks = (), ()
        if spec.timing and index < spec.timing.documents:
            seconds = own.lognormal(np.log(3.1), 0.03, 3)
            pairs = tuple(
                TimedPair(
                    arm=float(s / row.speedup * own.lognormal(0, 0.02)),
                    reference=float(s),
                    again=float(s * second.lognormal(0, 0.01)),
                )
                for s in seconds
            )
            ranks = (RankTime(busy=1.2, idle=0.8), RankTime(busy=0.7, idle=1.3)) if spec.pipeline else ()
        samples.append(
            SdtpSample(
                document=f"module-{index:03d}",
                prompt_tokens=PROMPT,
                nll=nll,
                reference_nll=reference,
                agreement=float(np.clip(0.93 - row.added / 2 + other.normal(0, 0.03), 0, 1)),
                kl=abs((row.added + drift) * 0.6 + 0.4 * float(sensitivity[index] + other.normal(0, 0.08))),
                living=living,
                pairs=pairs,
                boundary_bytes=(_sent(spec, living),) if spec.pipeline else (),
                reference_boundary_bytes=(PROMPT * HIDDEN_BYTES,) if spec.pipeline else (),
                ranks=ranks,
            )
        )
    share = sum(living) / (PROMPT * len(living))
    totals = SdtpTotals(
        keep_ratios=spec.keep_ratios,
        prefill_flops=2.9e11 * share,
        reference_prefill_flops=2.9e11,
        kv_bytes=int(47_185_920 * share),
        reference_kv_bytes=47_185_920,
        training=_training(row, own, seed) if spec.importance == "learned" else None,
        calibration=None
        if spec.selection == "top_k"
        else Calibration(values=(0.8,) * 10, counts=(700,) * 10, mean_kept=(703.5,) * 10),
        retrieval=_probes(own, spec.retrieval, row.added + drift) if spec.retrieval else (),
        weight_layout="stock",
        cores=2,
        peak_memory_bytes=1_500_000_000,
    )
    return record_of(SdtpRecord, name, spec, Outcome(status="ok"), tuple(samples), totals)


def sweep(tokens: int) -> Sweep:
    """A sweep at one prompt length."""
    own = rng(f"sweep {tokens}")

    def pairs(speedup: float) -> tuple[TimedPair, ...]:
        seconds = tokens / 300 * own.lognormal(0, 0.03, 3)
        return tuple(
            TimedPair(arm=float(s / speedup * own.lognormal(0, 0.02)), reference=float(s)) for s in seconds
        )

    ratios = (0.9, 0.7, 0.5)
    shares = {
        ratio: float(np.mean([ratio ** sum(at <= layer for at in LAYERS) for layer in range(30)]))
        for ratio in ratios
    }
    return Sweep(
        spec=SweepSpec(
            layers=LAYERS,
            keep_ratios=ratios,
            preserve=Preserve(),
            tokens=tokens,
            new_tokens=128,
            repeats=3,
            compute=Compute(),
        ),
        points=tuple(
            SweepPoint(
                keep_ratio=ratio,
                flops=2.8e8 * tokens * shares[ratio],
                reference_flops=2.8e8 * tokens,
                kv_bytes=int(46_080 * tokens * shares[ratio]),
                reference_kv_bytes=46_080 * tokens,
                prefill=pairs(0.95 / shares[ratio]),
                end_to_end=pairs(0.6 / shares[ratio] + 0.4),
                overhead=0.015,
            )
            for ratio in ratios
        ),
        library=pairs(1.1),
        weight_layout="stock",
        environment=environment(),
        digests=digests(f"sweep {tokens}"),
    )


def _training(row: Row, own: np.random.Generator, seed: int) -> Training:
    def ranking(level: float) -> tuple[Ranking, ...]:
        return tuple(
            Ranking(
                document=f"window-{index:02d}",
                spearman=tuple(np.clip(own.normal(level, 0.06, 10), -1, 1)),
                ndcg=tuple(np.clip(own.normal(0.8 + level / 6, 0.02, 10), 0, 1)),
                overlap=tuple(np.clip(own.normal(0.7 + level / 4, 0.02, 10), 0, 1)),
            )
            for index in range(HELDOUT)
        )

    return Training(
        pruner=PrunerSpec(
            layers=LAYERS,
            losses=row.losses,
            keep_ratios=(row.trained_at,) * 10,
            preserve=Preserve(),
            width=128,
            epochs=1,
            batch=1,
            learning_rate=1e-3,
            temperature=1.0,
            seed=seed,
            compute=Compute(),
        ),
        saliency=SaliencySpec(
            layers=LAYERS,
            target=row.target,
            documents=40,
            retrieval=TrainingPrompts(count=40),
            heldout_documents=HELDOUT,
            tokens=384,
            continuation_tokens=64,
            compute=Compute(),
        ),
        ranking=ranking(row.spearman),
        ranking_untrained=ranking(0.02),
        seconds=120.0,
    )


def _probes(own: np.random.Generator, prompts: Retrieval, added: float) -> tuple[RetrievalProbe, ...]:
    shared = np.random.default_rng(1)
    found = []
    for number in range(prompts.count):
        turn, place = divmod(number, len(prompts.kinds))
        reference = float(shared.gamma(2.0, 0.1))
        nll = reference + 2 * added + float(shared.gamma(2.0, 0.2) + own.normal(0, 0.2))
        found.append(
            RetrievalProbe(
                document=f"fact-{number:03d}",
                kind=prompts.kinds[place],
                depth=prompts.depths[turn % len(prompts.depths)],
                hit=nll < 1.2,
                nll=max(0.0, nll),
                reference_hit=reference < 0.4,
                reference_nll=reference,
            )
        )
    return tuple(found)


def _sent(spec: EvaluateSpec, living: tuple[int, ...]) -> int:
    """Bytes over the boundary before layer 15; the stage there runs on either side of it."""
    return living[15 if spec.pipeline.prune == "before" else 14] * HIDDEN_BYTES


def _living(spec: EvaluateSpec) -> tuple[int, ...]:
    if spec.mask == "soft":
        return (PROMPT,) * 30
    now, found = PROMPT, []
    ratios = dict(zip(spec.layers, spec.keep_ratios, strict=True))
    protected = spec.preserve.head + spec.preserve.tail
    for layer in range(30):
        if layer in ratios:
            now = max(min(protected, now), int(np.ceil(ratios[layer] * now)))
        found.append(now)
    return tuple(found)
