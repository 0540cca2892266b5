"""What a family decides and what open predictions need: against the decisions on data of that size."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from snakemake.utils import update_config

from ablations.evidence.decisions import decide
from ablations.evidence.expectations import Confirmatory, Look
from ablations.evidence.inputs import PaperSettings
from ablations.study.planning.plan import Plan
from ablations.study.prospects import after_a_run, before_a_run, told
from tests.evidence.arms import decoding, sdtp, study

ROOT = Path(__file__).parents[2]
SETTINGS = PaperSettings(confirmatory=Confirmatory(sdtp=("A",), dynatree=("D",)))

pytestmark = pytest.mark.usefixtures("working_folder")


def spread(n: int, mean: float, sd: float) -> np.ndarray:
    """So many values of exactly this mean and standard deviation."""
    values = np.random.default_rng(n).normal(size=n)
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


def arms(n: int, effect: float, level: str = "down"):
    """An arm and a baseline on `n` documents of text."""
    return study(sdtp("baseline", np.ones(n)), sdtp("A", 1 + spread(n, effect, 0.1), text_level=level))


def needs(found, settings=SETTINGS):
    return after_a_run(found, settings)[1]


@pytest.mark.parametrize(
    ("level", "effect"), [("down", 0.03), ("down_strong", 0.25), ("same", 0.01), ("same", 0.08)]
)
def test_as_many_documents_as_are_needed_decide_the_effect_that_was_seen(level, effect):
    counts, (need,) = after_a_run(arms(10, effect, level), SETTINGS)
    assert counts == (0, 1)
    assert (need.prediction.experiment, need.prediction.aspect, need.there) == ("A", "text", 10)
    (more,) = (each for each in decide(arms(need.needed, effect, level), SETTINGS))
    assert more.outcome not in (None, "not_resolved")
    # Power is more than a half: at half of the documents such an effect is not seen.
    (less,) = (each for each in decide(arms(need.needed // 3, effect, level), SETTINGS))
    assert less.outcome == "not_resolved"
    assert re.fullmatch(rf"  A text: {need.needed} documents \(10 so far\)", [*told([need])][-1])


def test_what_is_decided_is_no_need():
    assert after_a_run(arms(40, 0.5), SETTINGS) == ((1, 1), [])
    assert [*told([])] == []


def test_an_effect_on_a_cut_is_decided_by_no_number_of_documents():
    (need,) = needs(arms(10, 0.05, "same"))
    assert [*told([need])][-1] == "  A text: more than 100,000 documents"


def trained(means: np.ndarray):
    """An arm of so many trainings, whose effects differ more from training to training than by document."""
    own = 10 + np.random.default_rng(0).normal(0.0, 0.01, (30, len(means))) + means
    seeds = tuple(range(len(means)))
    return study(
        sdtp("baseline", np.full(own.shape, 10.0), seeds=seeds),
        sdtp("A", own, seeds=seeds, text_level="down"),
    )


def test_trainings_that_differ_ask_for_more_of_them():
    (need,) = needs(trained(spread(3, 0.06, 0.06)))
    said = re.fullmatch(r"  A text: (\d+) training seeds \(3 so far\)", [*told([need])][-1])
    assert [each.outcome for each in decide(trained(spread(int(said[1]), 0.06, 0.06)), SETTINGS)] == [
        "as_expected"
    ]
    (need,) = needs(trained(spread(3, 0.06, 2.0)))
    assert [*told([need])][-1] == "  A text: more than 100,000 documents or 50 training seeds"


def test_what_was_not_measured_is_told_with_the_reason():
    found = study(sdtp("baseline"), sdtp("A", ended="not_run", text_level="down"))
    assert [*told(needs(found))][-1] == "  A text: not run"
    found = study(decoding("F", [0.0] * 6, noise=0.4), decoding("D", spread(6, 0.3, 0.001), above=("F",)))
    assert [*told(needs(found))][-1] == "  D above F: below noise"


def test_minutes_are_those_of_the_arm_and_of_what_it_is_compared_with():
    found = arms(10, 0.03)
    for name, seconds in (("A", 20.0), ("baseline", 10.0)):
        path = Path(f"results/spec/{name}-0.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"inputs": {"text": f"results/block/{name}"}}))
        block = Path(f"results/block/{name}/0-10.json")
        block.parent.mkdir(parents=True)
        content = {"module": "m", "spec": {"measure": "text"}, "environment": {"seconds": seconds}}
        block.write_text(json.dumps(content))
    (need,) = needs(found)
    assert need.seconds == pytest.approx((need.needed - 10) * 3.0)
    assert f"about {round(need.seconds / 60)} min more)" in [*told([need])][-1]


def test_minutes_of_replayed_prompts_are_those_of_replays_and_of_as_large_a_share_of_timed_ones():
    prices = {"D": spread(20, 0.03, 0.2), "F": np.zeros(20)}
    arms_of_decoding = [
        decoding(name, priced[:5] + 0.01 * np.arange(5), {"code": priced}, above=("F",) * (name == "D"))
        for name, priced in prices.items()
    ]
    # A prompt of D takes ten seconds to time and two to replay, one of F half as much; costs are not series.
    for name, factor in (("D", 1.0), ("F", 0.5)):
        inputs = {"code": f"{name}-decode", "replayed_code": f"{name}-replay"}
        series = {kind: f"results/block/{folder}" for kind, folder in inputs.items()}
        spec = Path(f"results/spec/{name}-0.json")
        spec.parent.mkdir(parents=True, exist_ok=True)
        spec.write_text(json.dumps({"inputs": {**series, "costs": "results/costs/c/manifest.json"}}))
        for folder, block, seconds in ((series["code"], "0-5", 50), (series["replayed_code"], "0-20", 40)):
            path = Path(folder, f"{block}.json")
            path.parent.mkdir(parents=True)
            content = {"module": "m", "spec": {}, "environment": {"seconds": seconds * factor}}
            path.write_text(json.dumps(content))
    (need,) = needs(study(*arms_of_decoding))
    assert need.there == 20
    assert need.seconds == pytest.approx((need.needed - 20) * 1.5 * (2 + 10 * 5 / 20))


def test_the_cheapest_are_named_first_and_the_others_counted():
    effects = {"A": 0.02, "B": 0.06, "C": 0.04}
    measured = [sdtp(name, 1 + spread(10, mean, 0.1), text_level="down") for name, mean in effects.items()]
    found = study(sdtp("baseline", np.ones(10)), *measured)
    settings = PaperSettings(confirmatory=Confirmatory(sdtp=("A", "B", "C")))
    lines = [*told(needs(found, settings), 2)]
    assert [line.split()[0] for line in lines[1:3]] == ["B", "C"]
    assert lines[3].startswith("  and 1 more")


def test_the_next_look_has_a_level_of_its_own():
    def needed(*alphas):
        looks = tuple(
            Look(documents=10 * 2**number, retrieval=1, alpha=alpha) for number, alpha in enumerate(alphas)
        )
        (need,) = needs(arms(10, 0.03), SETTINGS.model_copy(update={"looks": looks}))
        return need.needed

    assert needed(0.01, 0.0001) > needed(0.01, 0.01) > needed(0.01, 0.04)


def planned(*overlays, **changes):
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    for name in overlays:
        update_config(raw, yaml.safe_load((ROOT / f"workflow/studies/{name}.yaml").read_text()))
    update_config(raw, changes)
    return Plan(raw, ROOT)


def test_a_plan_says_what_it_decides():
    first, head, *rows, _ = before_a_run(planned())
    assert re.match(r"\d+ confirmatory predictions of 13 experiments, decided together at 5%", first)
    assert first.endswith("this run at look 3 of 4 (alpha 0.02)")
    assert head.split()[:3] == ["measure", "predictions", "n"]
    text = next(row.split() for row in rows if row.startswith("text"))
    # A3 to A7, A2, M1 and B1m.
    assert text[1:3] == ["8", "60"]
    assert sum(int(re.search(r"  (\d+) ", row)[1]) for row in rows) == int(first.split()[0])
    more = [*before_a_run(planned(sdtp={"evaluation": {"documents": 120, "retrieval": {"count": 80}}}))]
    smaller = next(row.split() for row in more if row.startswith("text"))
    assert float(smaller[4]) < float(text[4])


def test_speed_that_is_counted_is_not_decided():
    rows = [*before_a_run(planned(paper={"confirmatory": {"sdtp": ["A2", "A7"], "dynatree": []}}))]
    assert rows[0].startswith("5 confirmatory predictions of 2 experiments")
    assert any(re.match(r"prefill speed +1 +16 ", row) for row in rows)
    nothing = planned(paper={"confirmatory": {"sdtp": [], "dynatree": []}})
    assert [*before_a_run(nothing)] == [
        "no confirmatory predictions (paper.confirmatory): nothing will be decided"
    ]


@pytest.mark.parametrize("overlay", ["tiny", "full", "truth", "paper-scale", "paper-scale-dynatree-1500"])
def test_every_shipped_study_says_what_it_decides(overlay):
    lines = [*before_a_run(planned(overlay))]
    assert len(lines) > 3
    # Paired on what both arms are measured on.
    assert not any(re.search(r" 0 +\d", line[:35]) for line in lines[2:-1])
