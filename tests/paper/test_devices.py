"""Times of different devices: refused, or marked and never compared."""

import json
from pathlib import Path

import pytest

from ablations.core.errors import UserError
from ablations.evidence.inputs import PaperInput
from ablations.paper.collect import summarise
from ablations.paper.drawing.bound import bound_points
from ablations.paper.drawn import drawn_from
from ablations.paper.section import render_section
from ablations.paper.tables import write_tables
from tests.paper.conftest import TEMPLATES
from tests.paper.synthetic import write_study

OTHER = "Other GPU"


def moved(folder: Path, *names: str, **peculiarities) -> PaperInput:
    """A synthetic study of which some records come from another device."""
    plan = PaperInput.model_validate_json(write_study(folder, **peculiarities).read_bytes())
    for name in names:
        path = folder / name
        record = json.loads(path.read_text())
        record["environment"] |= {"device": OTHER, "device_type": "cuda", "host": "11111111"}
        # As a program of its own would have written it.
        path.write_text(json.dumps(record | ({"checksum": ""} if "checksum" in record else {})))
    return plan


def test_one_device_has_no_marks(study):
    assert study.summary.elsewhere == {}
    assert "ddagger" not in study.section + study.table("sdtp_matrix.tex") + study.table("decoding.tex")


@pytest.mark.parametrize("name", ["A7", "F2"])
def test_times_of_two_devices_are_refused(tmp_path, name):
    plan = moved(tmp_path, f"record/{name}.json")
    with pytest.raises(
        UserError, match=rf"times of different devices .*{name} on {OTHER}.*mix_devices: true"
    ):
        summarise(plan)


def test_the_methods_may_be_on_different_devices(tmp_path):
    plan = moved(tmp_path, *(f"record/{path}.json" for path in ("F1", "F2", "F3", "F4")))
    decoding = {item.id for item in plan.experiments if item.method == "dynatree"}
    kept = tuple(
        item for item in plan.experiments if item.id not in decoding or item.id in ("F1", "F2", "F3", "F4")
    )
    summary = summarise(plan.model_copy(update={"experiments": kept}))
    assert summary.elsewhere == {}


def test_mixed_on_purpose_they_are_marked_and_not_compared(tmp_path):
    plan = moved(tmp_path, "record/A7.json", settings={"mix_devices": True})
    summary = summarise(plan)
    assert summary.elsewhere == {"A7": OTHER}
    assert summary.comparison("A7", "baseline", "speed") is None
    assert summary.comparison("A7", "baseline", "text") is not None
    assert summary.comparison("A9", "baseline", "speed") is not None
    write_tables(summary, TEMPLATES, tmp_path / "tables")
    table = (tmp_path / "tables/sdtp_matrix.tex").read_text()
    assert r"A7$^{\ddagger}$" in table
    assert rf"$^{{\ddagger}}$: on another device than the other rows ({OTHER})" in table
    assert table.count(r"\ddagger") == 2
    assert "speeds of different devices are not compared" in render_section(summary, TEMPLATES)


def test_a_sweep_over_two_devices_is_refused(tmp_path):
    plan = moved(tmp_path, "sweep/512.json", lengths=(512, 1024), settings={"mix_devices": True})
    with pytest.raises(UserError, match=rf"the sweep's lengths .*512 on {OTHER}"):
        summarise(plan)


def test_a_sweep_on_another_device_than_the_experiments_is_refused(tmp_path):
    plan = moved(tmp_path, "sweep/512.json", lengths=(512,))
    with pytest.raises(UserError, match=rf"times of different devices .*the sweep on {OTHER}"):
        summarise(plan)


def test_mixed_on_purpose_a_sweep_stands_for_itself(tmp_path):
    plan = moved(tmp_path, "sweep/512.json", lengths=(512,), settings={"mix_devices": True})
    summary = summarise(plan)
    assert summary.sweep_elsewhere == OTHER
    assert summary.elsewhere == {}
    assert set(bound_points(summary)["tokens"]) == {summary.sdtp.prompt_tokens}
    assert not [path for name, path in drawn_from(summary, "bound") if name == "bound"]
    section = render_section(summary, TEMPLATES)
    assert f"The prompt-length sweep ran on {OTHER}" in section
    assert rf"All times come from Synthetic CPU @ 2.00GHz and {OTHER}" in section
    assert "did not all run in the same environment" not in section
    write_tables(summary, TEMPLATES, tmp_path / "tables")
    caption = f"Measured on {OTHER}, another device than that of the experiments"
    assert caption in section
    assert caption in (tmp_path / "tables/sweep.tex").read_text()


def test_a_sweep_on_the_device_of_the_experiments_needs_no_mention(whole):
    assert whole.summary.sweep_elsewhere is None
    assert "prompt-length sweep ran on" not in whole.section
    assert "another device" not in whole.section + whole.table("sweep.tex")


def test_a_sweep_alone_is_named(tmp_path):
    plan = moved(tmp_path, lengths=(512,))
    summary = summarise(plan.model_copy(update={"experiments": ()}))
    assert [machine.experiments for machine in summary.machines] == [()]
    assert (summary.elsewhere, summary.sweep_elsewhere) == ({}, None)
