"""An archive holds records and the specs of the series that they are joined from."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from ablations.core.errors import UserError
from ablations.core.files import canonical_json, sha256_text
from ablations.evidence.expectations import Experiment
from ablations.evidence.inputs import PaperInput
from ablations.paper.archive import pack, unpack
from tests.evidence.series import Study, evaluate_spec


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Path:
    """A study of one experiment, joined by the job itself."""
    monkeypatch.chdir(tmp_path)
    study = Study(Path("results"), evaluate_spec(documents=2, prompts=0, timed=0))
    study.block("text", (0, 2))
    job = json.loads(study.write_spec().read_text())
    job["spec_digest"] = sha256_text(canonical_json(job["spec"]))[:16]
    determined = ("module", "spec_digest", "code_digest", "input_digests")
    digest = sha256_text(canonical_json({name: job[name] for name in determined} | {"pins": {}}))[:16]
    spec = Path("results/spec") / f"{digest}.json"
    spec.write_text(json.dumps(job | {"digest": digest}))
    for series in job["input_digests"].values():
        (spec.parent / f"{series}.json").write_text("{}")
    record = f"results/record/{digest}.json"
    command = [sys.executable, "-m", "ablations.evidence.join", "--spec", spec, "--out", record]
    subprocess.run(command, check=True)
    experiment = Experiment(
        id="A1", method="sdtp", title="A", section="own", change={}, versus=None, records=(record,)
    )
    content = {"study": "s", "settings": {}, "experiments": (experiment,), "models": {}, "texts": {}}
    path = tmp_path / "collect.json"
    path.write_text(PaperInput(**content, code="0").model_dump_json())
    return path


def test_the_specs_of_the_series_are_packed_and_their_blocks_are_not(plan, tmp_path):
    (record,) = Path("results/record").glob("*[0-9a-f].json")
    pack(plan, tmp_path / "archive.tar.gz")
    with tarfile.open(tmp_path / "archive.tar.gz") as tar:
        names = set(tar.getnames())
    assert names == {
        *("archive.json", "results/stamp/collect.json", "results/spec/digest-text.json"),
        *(str(record), f"results/record/{record.stem}.rows.jsonl", f"results/spec/{record.name}"),
    }
    unpack(tmp_path / "archive.tar.gz", tmp_path / "new")
    assert (tmp_path / "new" / record).read_bytes() == record.read_bytes()


def test_a_record_of_other_series_is_not_packed(plan, tmp_path):
    (record,) = Path("results/record").glob("*[0-9a-f].json")
    record.write_text(record.read_text().replace("digest-text", "digest-more"))
    with pytest.raises(UserError, match="its digests do not give its name"):
        pack(plan, tmp_path / "archive.tar.gz")
