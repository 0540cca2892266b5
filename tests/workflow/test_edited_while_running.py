"""A configuration edited while jobs run changes nothing for the jobs already planned."""

import json

from tests.workflow.conftest import Checkout


def edit(study: Checkout) -> None:
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.55}")
    study.replace("config.yaml", "schedule: {keep_ratio: 0.8}", "schedule: {keep_ratio: 0.85}")


def test_panels_of_this_machine_run_as_planned(study):
    specs = {study.record(name): json.loads(study.record(name).read_text())["spec"] for name in ("A7", "A9")}
    study.forget("A7", "A9")
    with study.running("A7", "A9") as running:
        running.wait_until(lambda: "Evaluating 6 blocks" in running.log.read_text())
        edit(study)
        done = running.finish()
    assert done.code == 0, done.output
    for path, spec in specs.items():
        assert json.loads(path.read_text())["spec"] == spec
    assert [job for job in study.planned() if "Evaluating" in job] == [
        "Evaluating 6 blocks side by side: A7 (3), A9 (3) (SDTP)"
    ]
