"""Every command that the documentation shows is run, every edit made, every link and message looked up."""

import ast
import re
import subprocess
from collections import Counter

import pytest

from tests.workflow import documentation as docs
from tests.workflow.conftest import ROOT, Checkout, clone

# What the text before a command says to make first.
MADE_BEFORE = {"docs/paper.md": ["results/archive.tar.gz", "paper/ablation.pdf"]}


def run(command: list[str], study: Checkout) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=study.path, env=study.environment, capture_output=True, text=True, check=False
    )


@pytest.mark.full
@pytest.mark.parametrize("page", docs.PAGES)
def test_the_commands_of_a_page_run(page, study):
    if not any(docs.commands(block) for block in docs.blocks(page)):
        return
    for target in MADE_BEFORE.get(page, []):
        assert study.snakemake(target).code == 0
    (study.path / "prompts.txt").write_text("def add(a, b):\nclass Stack:\n")
    docs.write_questions(study.path)
    for block in docs.blocks(page):
        docs.apply(block, study)
        mine = study.path / "workflow/studies/mine.yaml"
        if mine.exists():
            mine.write_text(mine.read_text().replace("path/to/checkpoint", str(docs.checkpoint(study))))
        for command in docs.commands(block):
            if docs.excuses(command):
                continue
            done = run(docs.runnable(command, study), study)
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_at_most_five_kinds_of_commands_are_not_run_and_each_is_shown():
    assert len(docs.NOT_RUN) <= 5
    shown = [
        command for page in docs.PAGES for block in docs.blocks(page) for command in docs.commands(block)
    ]
    assert len(shown) > 30
    assert set().union(*map(docs.excuses, shown)) == set(docs.NOT_RUN)
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in shown:
        if command.split()[0] == "make":
            assert command.split()[1] in targets
    mentioned = re.findall(r"`make ([a-z-]+)`", "".join((ROOT / page).read_text() for page in docs.PAGES))
    assert set(mentioned) <= set(targets)


@pytest.mark.full
def test_the_one_changed_thing_of_the_readme_runs_what_it_says(study):
    study.replace(
        "config.yaml", "change: {schedule: {keep_ratio: 0.5}}", "change: {schedule: {keep_ratio: 0.55}}"
    )
    (table,) = [block.text for block in docs.blocks("README.md") if block.text.startswith("job  ")]
    planned = study.snakemake("--dry-run", "paper/ablation.tex").output
    assert re.sub(" +", " ", table) in re.sub(" +", " ", planned)
    done = study.snakemake("paper/ablation.tex").output
    assert re.search(
        r"^\d+ of \d+ confirmatory predictions decided\.\n(?:  \w[\w ]+ +\d+  .*\n)+.*"
        r"\nThe section is paper/ablation.tex, its tables and figures lie beside it\.\n"
        r"open predictions, and what would decide effects as large as those observed:\n  \w",
        done,
        re.MULTILINE | re.DOTALL,
    )


def test_the_edits_of_the_tutorial_make_stale_what_it_says(tmp_path):
    study = clone(tmp_path / "study")
    said = Counter()
    for heading, part in docs.parts("docs/tutorial.md").items():
        before = docs.planned_jobs(study)
        for piece in part:
            if isinstance(piece, docs.Block):
                docs.apply(piece, study)
                continue
            for statement in docs.said_to_be_stale(piece):
                assert docs.became(before, docs.planned_jobs(study)) == statement, heading
                said[heading] += 1
    assert said == {"An ablation": 1, "An importance scorer": 2, "A drafter": 3}


@pytest.mark.parametrize("page", docs.PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"(?s)```.*?```", "", (ROOT / page).read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, heading = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings]


def test_every_message_of_troubleshooting_is_one_of_the_program():
    table = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(table) > 25
    texts = [text for path in (ROOT / "src").rglob("*.py") for text in literals(path.read_text())]
    for message in table:
        # A message may be put together of several strings.
        for part in message.split("…"):
            assert any(part.strip(" :") in text for text in texts), f"{message}: {part!r}"


def literals(source: str) -> list[str]:
    """Strings of a module, and what an f-string says between the values that it fills in."""
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
