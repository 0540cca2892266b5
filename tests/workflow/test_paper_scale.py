"""The overlays of the published settings: the whole graph of jobs, and a run on stand-ins to the PDF."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import ROOT, Finished, clone
from tests.workflow.stand_ins import overlay

STUDIES = sorted(path.stem for path in (ROOT / "workflow/studies").glob("paper-scale*.yaml"))


def snakemake(folder: Path, *arguments: str) -> Finished:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "HF_HOME": str(folder / "home")},
    )
    return Finished(done.returncode, done.stdout)


@pytest.mark.full
@pytest.mark.parametrize("study", STUDIES)
def test_the_graph_of_jobs(tmp_path, study):
    checkout = clone(tmp_path / "study")
    name = f"workflow/studies/{study}.yaml"
    done = snakemake(checkout.path, "-n", "--configfile", name, "--", "paper/ablation.pdf")
    assert done.code == 0, done.output
    planned = [line for line in done.output.splitlines() if "Preparing checkpoint" in line]
    assert planned
    assert "Writing paper/ablation.tex" in done.output


@pytest.mark.long
@pytest.mark.parametrize("study", STUDIES)
def test_stand_ins_run_to_the_pdf(tmp_path, study):
    checkout = clone(tmp_path / "study")
    path = checkout.path / f"workflow/studies/{study}.yaml"
    content = yaml.safe_load(path.read_text())
    (tmp_path / "files").mkdir()
    small = tmp_path / "stand-ins.yaml"
    small.write_text(yaml.safe_dump(overlay(tmp_path / "files", content)))
    done = snakemake(checkout.path, "--configfile", str(path), str(small), "--", "paper/ablation.pdf")
    assert done.code == 0, done.output
    assert (checkout.path / "paper/ablation.pdf").read_bytes().startswith(b"%PDF")
    records = [json.loads(file.read_text()) for file in (checkout.path / "results/record").glob("*.json")]
    wanted = [*content["sdtp"]["only"], *content["dynatree"]["only"]]
    # Rows that are the same job share a record; what rotates by stale positions must crash, nothing else may.
    assert len(records) >= len(wanted) - 2
    assert {record["label"] for record in records if record["outcome"]["status"] != "ok"} <= {"B2"}
    section = (checkout.path / "paper/ablation.tex").read_text()
    for method, name in (("sdtp", "SDTP"), ("dynatree", "Decoding")):
        assert (f"{name} is not part of this study." in section) == (not content[method]["only"])
