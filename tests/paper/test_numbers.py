"""Every number has a name, and a record from which it can be computed again."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.core.files import sha256_file
from ablations.evidence.expectations import Experiment
from ablations.paper.numbers import all_quantities, write_numbers
from tests.paper.conftest import TEMPLATES

RECOMPUTE = Path(__file__).with_name("recompute_numbers.py")


@pytest.fixture(scope="module")
def provenance(whole, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    write_numbers(whole.summary, TEMPLATES, folder / "numbers.tex", folder / "provenance.json")
    return folder / "provenance.json"


def recompute(provenance: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, RECOMPUTE, "--provenance", provenance], capture_output=True, text=True, check=False
    )


def test_every_number_is_recomputed_from_its_record(provenance):
    done = recompute(provenance)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    assert int(done.stdout.split()[0]) > 2000


def test_a_number_that_is_not_its_records_is_found(provenance, tmp_path):
    content = json.loads(provenance.read_text())
    wrong = {
        "A7.text_effect": 0.001,
        "A5.decided.text": 0.01,
        "F4.code.throughput": 0.3,
        "F4.speedup": 0.001,
        "F4.code.rounds_speedup": 0.001,
        "F4.price_error": 0.001,
        "F4.depth2.acceptance": 0.001,
        "trees.linear.4.1.none.128.all.speedup": 0.01,
    }
    for number in content["numbers"]:
        number["value"] += wrong.get(number["name"], 0)
        if number["name"] == "A9.kept_share":
            number["text"] = "$99.9\\%$"
        if number["name"] == "A2.kl":
            number["low"] -= 0.1
    (part,) = (
        item for item in content["decisions"] if (item["experiment"], item["aspect"]) == ("F4", "above")
    )
    part["outcome"] = "opposite"
    content["records"][content["numbers"][0]["records"][0]]["commit"] = "0"
    (tmp_path / "provenance.json").write_text(json.dumps(content))
    done = recompute(tmp_path / "provenance.json")
    assert done.returncode == 1
    for name in (
        *wrong,
        "A9.kept_share: printed",
        "A2.kl: end of the interval",
        "commit is",
        "outcome opposite",
    ):
        assert name in done.stderr
    assert done.stderr.count("\n") == len(wrong) + 4


def test_names_are_unique_and_stable(whole):
    names = [item.name for item in all_quantities(whole.summary)]
    assert len(set(names)) == len(names)
    assert {
        *(
            "baseline.quality",
            "A7.effect",
            "A7.text_effect",
            "A7.retrieval_effect",
            "A7.relative_speed",
            "A5.text_effect.these_trainings",
            "A5.counted_speed",
            "A7.decided.text",
            "A7.decided.text.p",
            "A7.hits",
            "A7.pairs.hits",
            "A7.answer_nll",
            "A3.spearman",
            "A3.ranking_effect",
            "F4.against.F2",
            "F4.decided.above.F2",
        ),
        *("G1.0.boundary_bytes", "G1.sent_share", "F4.speedup", "F4.contribution", "F4.code.throughput"),
        *(
            "F4.depth1.acceptance",
            "F4.chat.measured_speedup",
            "F4.rounds_speedup",
            "F4.price_error",
            "K3.loss",
            "sweep.2048.0.5.speedup",
            "lengths.tree.7.2.0.05.256.code.speedup",
        ),
    } <= set(names)


def test_a_number_names_its_record_and_that_of_the_comparator(whole):
    (effect,) = (item for item in all_quantities(whole.summary) if item.name == "A7.text_effect")
    assert [file.path for file in effect.files] == [file.path for file in whole.summary.row("A7").files]
    assert [file.path for file in effect.versus] == [
        file.path for file in whole.summary.row("baseline").files
    ]
    for file in (*effect.files, *effect.versus):
        assert file.sha256 == sha256_file(Path(file.path))
        assert file.device == "Synthetic CPU @ 2.00GHz"
        assert file.digest == json.loads(Path(file.path).read_text())["digests"]["job"]


def test_a_number_names_the_fields_that_it_is_computed_from(whole):
    fields = {item.name: item.field for item in all_quantities(whole.summary)}
    both = ("speedup", "rounds_speedup", "price_error", "contribution", "against.F2", "decided.above.F2")
    for name in both:
        assert "totals.replays[].rounds" in fields[f"F4.{name}"]
        assert "samples[].pairs[].reference" in fields[f"F4.{name}"]
    for name in ("tokens_per_forward", "chat.nodes_per_round", "depth1.acceptance", "repeated_4grams"):
        assert "totals.replays[]." in fields[f"F4.{name}"]
        assert "samples" not in fields[f"F4.{name}"]
    timed = ("F4.measured_speedup", "F4.throughput", "F4.draft_share", "F1.tokens_per_forward")
    for name in (*timed, "A7.relative_speed"):
        assert "replays" not in fields[name]


def test_what_did_not_run_has_no_number(render, tmp_path):
    study = render(missing=("A2", "F3"), crashed=("A7",))
    names = {item.name.partition(".")[0] for item in all_quantities(study.summary)}
    assert not names & {"A2", "F3", "A7"}
    assert "baseline" in names


@pytest.mark.full
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="TeX is not installed")
def test_authors_cite_numbers_by_name_and_unknown_names_are_errors(provenance, whole, tmp_path):
    def compiled(name: str) -> subprocess.CompletedProcess:
        document = (
            rf"\documentclass{{article}}\input{{{provenance.with_name('numbers.tex')}}}\begin{{document}}"
            rf"It is \ablationnumber{{{name}}} \ablationinterval{{{name}}}.\end{{document}}"
        )
        (tmp_path / "cite.tex").write_text(document)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "cite.tex"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")

    assert compiled("A7.text_effect").returncode == 0
    shown = subprocess.run(
        ["pdftotext", "cite.pdf", "-"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    effect = whole.summary.comparison("A7", "baseline", "text").estimate
    assert re.search(rf"It is \+{effect.value:.3f} \[{effect.low:.3f}, {effect.high:.3f}\]", shown)
    done = compiled("A7.efect")
    assert done.returncode != 0
    assert "no number is called `A7.efect'" in done.stdout


def test_names_of_the_users_own_are_names(render, tmp_path):
    own = Experiment(
        id="my-own_1",
        method="sdtp",
        title="Own",
        section="own",
        change={"mask": "soft"},
        versus="baseline",
        records=(str(tmp_path / "own.json"),),
    )
    study = render()
    shutil.copy(study.summary.row("A7").files[0].path, tmp_path / "own.json")
    found = {item.name for item in all_quantities(render(extra=(own,)).summary)}
    assert "my-own_1.text_effect" in found
