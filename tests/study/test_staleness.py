"""Digests change when what they stand for changes, and only then."""

import ast
import copy
import os
from pathlib import Path

import pytest
import yaml

from ablations.study.meaning import meaning
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import STAGES
from ablations.study.status import cost, statuses

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("working_folder")


EVERY_SYNTAX = """
import b, a as c
from .. import d as e
from __future__ import annotations
@decorated(1, *two, three=3, **four)
class A(B, metaclass=C):
    "A docstring."
    field: int = -1_000
    other: "str"
def f(a, /, b: int = 0x10, *c, d: float = 1e400, **e) -> None:
    return (yield)
async def g():
    async with a as b, c:
        await d
    async for x in y:
        pass
    return [x async for x in y if not x is None]
try:
    del a[1:2, ...], b[*c]
except* (E, F) as error:
    raise G from error
else:
    assert x, f"{x:{w}}"
finally:
    global z
match x:
    case {"a": 1, **rest} | [2, *_] | H(i=-1) if (j := 0):
        pass
with (k as l, m as n):
    o, *p = {**q, "r": 1j}, {s for t in u for s in t}, {v: w for v in x}
for y in z, *a:
    b += lambda *c, d=1: c if d else b"e" and u"f" or "\\N{EM DASH}\\ud800"
while not 0 < a <= b in c:
    break
f"a{{{x!r:>{w}.{p}f}}}" "b" f"{y = !s:a{v}b}{f'{z:{w}}':%Y-%m}" rf"\\d{a,}"
"""


@pytest.fixture
def raw():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def stale(raw, mutate):
    """Rules and labels of the jobs that a change of the configuration makes new."""
    before = Plan(copy.deepcopy(raw), ROOT)
    changed = copy.deepcopy(raw)
    mutate(changed)
    after = Plan(changed, ROOT)
    return sorted(
        f"{job.stage.rule}:{after.label(digest)}" if "record" in job.stage.result else job.stage.rule
        for digest, job in after.jobs.items()
        if digest not in before.jobs
    )


def test_a_keep_ratio_reruns_its_own_evaluation_alone(raw):
    def mutate(config):
        config["sdtp"]["ablations"]["A7"]["change"]["schedule"]["keep_ratio"] = 0.55

    assert stale(raw, mutate) == ["evaluate_sdtp:A7"]


def test_wording_reruns_no_experiment(raw):
    def mutate(config):
        ablation = config["sdtp"]["ablations"]["A7"]
        ablation["title"] = ablation["hypothesis"] = ablation["section"] = "other"
        ablation["expect"] = {"quality": "up"}
        config["models"]["smollm2"]["description"] = "another name"
        config["texts"]["python"]["description"] = "another name"
        config["paper"]["thresholds"] = {"quality_same": 0.5}
        config["resources"] = {"gpu": 3}

    assert stale(raw, mutate) == []


def test_renaming_an_experiment_reruns_nothing(raw):
    def mutate(config):
        ablations = config["sdtp"]["ablations"]
        ablations["Seven"] = ablations.pop("A7")
        config["paper"]["main"] = []

    assert stale(raw, mutate) == []


def test_a_loss_weight_reruns_training_and_evaluation(raw):
    def mutate(config):
        config["sdtp"]["ablations"]["A5"]["change"]["losses"]["ranking"] = 0.5

    assert stale(raw, mutate) == ["evaluate_sdtp:A5", "train_pruner"]


def test_a_shared_budget_reruns_its_users(raw):
    def mutate(config):
        config["dynatree"]["decoding"]["new_tokens"] = 32

    labels = ["D1", "E1", "E2", "E3", "F1", "F2", "F2b", "F2c", "F3", "F4", "K3"]
    labels += ["N1", "N2", "N3", "N4", "NG", "O1", "PL"]
    # The benchmark has a length of its own.
    assert stale(raw, mutate) == [f"decode:{label}" for label in labels]


def test_training_of_a_draft_reruns_its_users(raw):
    def mutate(config):
        config["dynatree"]["drafters"]["distilled"]["distil"]["epochs"] = 3

    # The hybrid draft of the baseline is one.
    labels = ["D1", "E1", "E2", "E3", "F2", "F2b", "F2c", "F3", "F4", "K3", "N1", "N2", "N3", "N4", "O1"]
    users = [f"decode:{label}" for label in labels]
    assert stale(raw, mutate) == ["benchmark", "calibrate_costs", *users, "distil"]


def test_a_changed_torch_pin_makes_every_model_job_stale_and_a_seaborn_pin_none(raw, tmp_path):
    constraints = (ROOT / "constraints.txt").read_text()

    def digests(text):
        (tmp_path / "constraints.txt").write_text(text)
        return {job.digest: job.stage.rule for job in Plan(raw, tmp_path).jobs.values()}

    before = digests(constraints)
    assert digests(constraints.replace("seaborn==", "seaborn==9.")) == before
    fresh = {
        rule
        for digest, rule in digests(constraints.replace("torch==", "torch==9.")).items()
        if digest in before
    }
    assert fresh <= {"prepare_text"}


def test_user_texts_are_known_by_their_bytes(raw, tmp_path):
    (tmp_path / "constraints.txt").write_text((ROOT / "constraints.txt").read_text())
    text = tmp_path / "mine.txt"
    text.write_text("one")
    raw["texts"]["mine"] = {"source": "local", "path": "mine.txt"}
    raw["dynatree"]["prompts"]["documentation"]["text"] = "mine"

    def digest():
        return Plan(raw, tmp_path).row("F1").jobs[0].digest

    first = digest()
    text.write_text("two")
    assert digest() != first
    text.write_text("one")
    assert digest() == first


@pytest.mark.parametrize(
    "same",
    [
        'import b\nimport a\n\n\ndef f(x):\n    """Other."""\n    # why\n    return (x\n        + 1)\n',
        "import a\nimport b\ndef f(x):\n    return x + 1\n",
    ],
)
def test_comments_docstrings_layout_and_import_order_mean_nothing(same):
    assert meaning(same) == meaning('import a\nimport b\n\ndef f(x):\n    """Doc."""\n    return x + 1\n')


@pytest.mark.parametrize(
    "other",
    [
        "import a\nimport b\ndef f(x):\n    return x + 2\n",
        "import a\nimport c\ndef f(x):\n    return x + 1\n",
        "import a\nimport b\ndef f(x, y):\n    return x + 1\n",
        "import a\nimport b\ndef f(x):\n    return x - 1\n",
        "import a\nimport b\ndef g(x):\n    return x + 1\n",
        "import a\nimport b\ndef f(x):\n    return x + True\n",
        "import a\nimport b\ndef f(x):\n    return 'x' + 1\n",
    ],
)
def test_logic_means_something(other):
    assert meaning(other) != meaning("import a\nimport b\ndef f(x):\n    return x + 1\n")


def test_a_format_nested_in_a_format_means_the_same_on_every_python(monkeypatch):
    source = 'f"{name:{width}} {name:>{width}.{digits}}" "" f"{name=}"\n'
    anywhere = meaning(source)
    # As Python 3.12.1 parses it.
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and node.format_spec:
            node.format_spec.values.append(ast.Constant(""))
    with monkeypatch.context() as patched:
        patched.setattr(ast, "parse", lambda text: tree)
        on_3_12_1 = meaning(source)
    assert on_3_12_1 == anywhere


def test_the_digest_of_code_is_the_same_on_every_python():
    # The digest is written down: whichever Python runs this test is compared with all others.
    assert meaning(EVERY_SYNTAX) == "6ce61e714277460324d363246e3cc1fbb192d0bcd195ef30f00e333ea8ed5705"


def test_an_empty_string_beside_a_string_means_something():
    assert meaning("f'{x}', ''") != meaning("f'{x}',")


def test_a_job_sees_the_code_it_imports_and_no_other(raw):
    plan = Plan(raw, ROOT)
    evaluate = plan.sources.code.closure("ablations.sdtp.evaluate")
    assert "ablations.lm.layered" in evaluate
    assert not [name for name in evaluate if name.startswith(("ablations.dynatree", "ablations.paper"))]
    assert "ablations.sdtp.training.losses" not in evaluate
    assert "ablations.study.statistics" not in evaluate
    assert not any(module.startswith("ablations.study.config") for module in evaluate)
    assert "ablations.sdtp.training.losses" in plan.sources.code.closure("ablations.sdtp.train")


def test_an_edit_behind_a_link_and_a_link_to_another_file_make_stale(raw, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name[:1] * 9)
        # Of the same size and time: by these alone the two are one file.
        os.utime(tmp_path / name / "a.txt", (1, 1))
    raw["texts"]["mine"] = {"source": "local", "path": str(folder)}
    raw["sdtp"]["text"] = "mine"
    found = []
    for target in ("one", "two"):
        (folder / "linked").unlink(missing_ok=True)
        (folder / "linked").symlink_to(tmp_path / target)
        plan = Plan(raw, ROOT)
        found.append(plan.row("baseline").jobs[0].inputs["text"].digest)
        # What was read is known to the next plan.
        plan.sources.hashes.remember()
    (tmp_path / "two/a.txt").write_text("edited")
    found.append(Plan(raw, ROOT).row("baseline").jobs[0].inputs["text"].digest)
    assert len({*found}) == 3


def test_whoever_only_looks_writes_nothing(raw):
    before = sorted(Path().rglob("*"))
    plan = Plan(raw, ROOT)
    statuses(plan)
    cost(plan)
    assert sorted(Path().rglob("*")) == before


def test_a_contract_of_one_method_is_in_the_code_of_all_its_jobs_and_of_no_other(raw):
    """What docs/tutorial.md and CONTRIBUTING.md say of staleness after an edit of a contract."""
    code = Plan(raw, ROOT).sources.code
    modules = {stage.module for stage in STAGES}
    assert len(modules) > 10
    for method in ("sdtp", "dynatree"):
        contract = f"ablations.study.contracts.{method}"
        with_it = {module for module in modules if contract in code.closure(module)}
        assert with_it == {module for module in modules if module.startswith(f"ablations.{method}.")}
    assert all("ablations.study.job" in code.closure(module) for module in modules)
    timed = ("sdtp.evaluate", "sdtp.evaluate_pipeline", "sdtp.sweep", "dynatree.decode", "dynatree.benchmark")
    assert all("ablations.lm.layered" in code.closure(f"ablations.{module}") for module in timed)
