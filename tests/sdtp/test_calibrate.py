import json

import pytest
import torch

from ablations.sdtp.calibrate import find_bound, find_mass
from ablations.sdtp.pruned.pruning import CALIBRATION_FILE
from ablations.sdtp.pruned.selection import threshold_count, top_p_count
from ablations.specs.sdtp.calibrate import Calibration
from ablations.specs.sdtp.counts import Protected

PROTECTED = Protected(2, 3)


@pytest.fixture
def scores():
    generator = torch.Generator().manual_seed(0)
    # As different from prompt to prompt as keep logits are.
    return [torch.randn(100, generator=generator) * (1 + index / 4) for index in range(8)]


@pytest.mark.parametrize("protected", [PROTECTED, Protected(0, 0)])
@pytest.mark.parametrize("count", [20, 50, 70, 99])
@pytest.mark.parametrize(("find", "kept"), [(find_mass, top_p_count), (find_bound, threshold_count)])
def test_mean_kept_is_the_count(scores, find, kept, count, protected):
    value = find(scores, count, protected)
    counts = [kept(row, value, protected) for row in scores]
    assert sum(counts) / 8 == pytest.approx(count, abs=0.5 if find is find_mass else 1e-9)
    assert len(set(counts)) > 1, "prompts must differ in this test"


@pytest.mark.parametrize(("find", "kept"), [(find_mass, top_p_count), (find_bound, threshold_count)])
def test_all_and_none(scores, find, kept):
    for count in (5, 100):
        value = find(scores, count, PROTECTED)
        assert {kept(row, value, PROTECTED) for row in scores} == {count}


@pytest.mark.parametrize("selection", ["top_p", "threshold"])
def test_job(workspace, selection):
    path = workspace.run("calibration", f"calibration_{selection}", selection=selection)
    calibration = Calibration.model_validate(json.loads((path.parent / CALIBRATION_FILE).read_text()))
    assert calibration.counts == (34, 24)
    # Three prompts; the scores of a tiny scorer are nearly level, so that a mass takes or leaves whole ranks.
    assert calibration.mean_kept == pytest.approx((34, 24), abs=1 if selection == "top_p" else 1e-9)
