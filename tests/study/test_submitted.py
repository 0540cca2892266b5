"""Jobs on a cluster are planned as they were submitted."""

import json
from types import SimpleNamespace

import pytest

from ablations.study.errors import UserError
from ablations.study.planning.submitted import remember, require_planned


def test_a_configuration_comes_back_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"b": {"z": 1, "a": [1, 2.5, None]}, "a": True}
    path = remember(config)
    found = json.loads(path.read_text())
    assert found == config
    assert list(found) == ["b", "a"] and list(found["b"]) == ["z", "a"]
    assert remember(config) == path
    assert remember({"a": True, "b": config["b"]}) != path


def test_a_job_that_is_planned_no_more_is_refused():
    plan = SimpleNamespace(jobs={"0123456789abcdef": None})
    require_planned(plan, ["snakemake", "--target-jobs", "decode:digest=0123456789abcdef", "--force"])
    with pytest.raises(UserError, match=r"^results/spec/1123456789abcdef.json: the code or constraints"):
        require_planned(plan, ["--target-jobs", "decode:digest=1123456789abcdef"])
