"""The decoding benchmark as Markdown, for the documentation."""

from collections.abc import Iterable

from ablations.paper.results.benchmark import ArmResult, DecodingBenchmark, Speedup


def markdown(found: DecodingBenchmark) -> str:
    """Headline ratios, how they were measured, notes, and a row for each arm."""
    where = found.environment
    sets = ", ".join(f"{count} {kind}" for kind, count in found.prompts.items())
    headlines = {
        f"method ({' or '.join(found.best_of)}) over the fastest autoregressive arm": (
            found.speedup_over_best_ar
        ),
        f"method ({' or '.join(found.best_of)}) over the fastest setting of Hugging Face": (
            found.speedup_over_best_hf
        ),
        "neural draft over the fastest autoregressive arm": found.neural_speedup_over_best_ar,
    }
    kinds = list(found.prompts)
    lines = [
        "| speed-up | point | interval | arm | over |",
        "|---|---|---|---|---|",
        *(_headline(name, speedup) for name, speedup in headlines.items()),
        "",
        f"Study {found.study}, {where.device}, {where.threads} thread(s), {where.dtype},"
        f" weights {found.weight_layout}, {where.measured_at[:10]}. Held-out prompts: {sets}; at most"
        f" {found.new_tokens} new tokens, {found.repeats} run(s) of each arm per prompt, interleaved."
        " The time of a prompt is the median of its runs; ratios are geometric means over prompts.",
        "",
        *(f"- {note}" for note in found.notes),
        "",
        _row(
            [
                *("arm", "configuration", "tokens/s", f"over {found.best_ar}", f"over {found.best_hf}"),
                *(f"{kind}, over {found.best_ar}" for kind in kinds),
                *("tokens per forward", "first token / draft / verify / rest", "identical"),
            ]
        ),
        _row(["---"] * (8 + len(kinds))),
        *(_arm(arm, kinds) for arm in found.arms),
    ]
    return "\n".join(lines) + "\n"


def _headline(name: str, speedup: Speedup | None) -> str:
    if speedup is None:
        return _row([name, "not measured", "", "", ""])
    return _row([name, f"{speedup.value:.2f}", _interval(speedup), speedup.arm, speedup.versus])


def _arm(arm: ArmResult, kinds: Iterable[str]) -> str:
    over = arm.over_best_ar
    time = arm.time
    split = (
        " / ".join(
            f"{100 * share:.0f}%" for share in (time.first_token, time.draft, time.verify, time.bookkeeping)
        )
        if time
        else ""
    )
    ties = f", {arm.ties} tie(s)" if arm.ties else ""
    return _row(
        [
            *(arm.id, arm.title, f"{arm.tokens_per_second:.1f}"),
            f"{over.value:.2f} {_interval(over)}",
            f"{arm.over_best_hf.value:.2f}",
            *(f"{over.kinds[kind]:.2f}" if kind in over.kinds else "" for kind in kinds),
            *(f"{arm.tokens_per_forward:.2f}", split, f"{arm.identical} of {arm.prompts}{ties}"),
        ]
    )


def _interval(speedup: Speedup) -> str:
    return "" if speedup.low is None else f"[{speedup.low:.2f}, {speedup.high:.2f}]"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
