"""The commands and edits that the documentation shows, ready to be run on the tiny study."""

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.workflow.conftest import ROOT, TINY, Checkout

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]

# What a test does not run as it stands, and why. At most five.
NOT_RUN = {
    "make": "installs from a package index; the recipes are printed, and continuous integration runs them",
    "pip": "installs from a package index",
    "-m tests.workflow": "tests of their own, which run for many minutes",
    "srun": "needs Slurm",
    "--tasks copa": "fetches the tasks from a hub",
}

# Studies that take from half an hour to days, and what needs a cluster: planned, not run.
LONG = re.compile(r"workflow/studies/(?!tiny|mine)\S+\.yaml|--profile slurm")


FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What a part of a page says of the edits that it has made so far, after line breaks became spaces.
STALE_NOW = re.compile(r"Stale now: ([^;.]+); new: ([^;.]+)\.")

PLAN = """
import json, sys
from pathlib import Path
import yaml
from snakemake.utils import update_config
from ablations.study.planning.plan import Plan
raw = {}
for name in sys.argv[1:]:
    update_config(raw, yaml.safe_load(Path(name).read_text()))
rules = {digest: job.stage.rule for digest, job in Plan(raw, Path()).jobs.items()}
print(json.dumps({digest: rule for digest, rule in rules.items() if rule != "join_record"}))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its lines."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Fenced blocks of a page, in order."""
    return [Block(*found) for found in FENCED.findall((ROOT / page).read_text())]


def commands(block: Block) -> list[str]:
    """Commands of a shell block, one line each; other blocks have none."""
    if block.language not in ("sh", "bash"):
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split("  #")[0].split()) for line in lines if line.strip() and line[0] != "#"]


def excuses(command: str) -> set[str]:
    """Keys of `NOT_RUN` that name the command: its program, or arguments of it."""
    program = command.split()[0].removeprefix(".venv/bin/")
    return {key for key in NOT_RUN if (key in command if " " in key else key == program)}


def runnable(command: str, study: Checkout) -> list[str]:
    """The command on the tiny study, with this interpreter and the digests that the study has."""
    words = shlex.split(_with_digests(command, study))
    program, words = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "snakemake":
        if LONG.search(command) and not {"--dry-run", "--unlock"} & {*words}:
            words.insert(0, "--dry-run")
        return [sys.executable, "-m", "snakemake", *_laid_over(words, LONG.search(command) is None)]
    if program == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", *words]
    assert program == "python", f"{command}: neither run nor listed in NOT_RUN"
    asks = words[:2] == ["-m", "ablations.study"] and words[2] != "schema" and not LONG.search(command)
    return [sys.executable, *(_laid_over(words, True) if asks else words)]


def _laid_over(words: list[str], tiny: bool) -> list[str]:
    """Arguments with the tiny study as the first overlay."""
    if not tiny or TINY in words:
        return words
    if "--configfile" in words:
        place = words.index("--configfile") + 1
        return [*words[:place], TINY, *words[place:]]
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], "--configfile", TINY, *words[end:]]


def _with_digests(command: str, study: Checkout) -> str:
    """Fill in DIGEST: that of the baseline, of its model, or of the panel of the pipelines."""
    if "DIGEST" not in command:
        return command
    shown = study.ask("show", "baseline")
    (model,) = set(re.findall(r"input +model: results/model/(\w+)/", shown))
    (digest, *_) = re.findall(r"^spec +results/spec/(\w+)\.json", shown, re.MULTILINE)
    panels = {path.stem: json.loads(path.read_text()) for path in study.path.glob("results/panel/*.json")}
    panel = next((name for name, content in panels.items() if content["rule"] == "evaluate_pipeline"), "")
    for folder, name in (("model", model), ("panel", panel), ("spec", digest)):
        command = command.replace(f"results/{folder}/DIGEST", f"results/{folder}/{name}")
    return command


def apply(block: Block, study: Checkout) -> None:
    """Make the edit of a `diff` block, or the file of another block whose first line names one."""
    named = re.match(r"# ([\w./-]+)\n", block.text)
    if not named or block.language not in ("diff", "python", "yaml"):
        return
    path, body = study.path / named[1], block.text[named.end() :]
    if block.language != "diff":
        path.write_text(body)
        return
    lines = body.splitlines()
    # A line may be the beginning of a longer one, so the last newline is left out.
    old = "\n".join(line[1:] for line in lines if line[:1] != "+")
    new = "\n".join(line[1:] for line in lines if line[:1] != "-")
    study.replace(named[1], old, new)
    for name in re.findall(r"^\+    (\w+):$", body, re.MULTILINE):
        # The tiny study runs a subset of the pruning experiments.
        if named[1] == "config.yaml" and "drafter" not in body:
            study.replace(TINY, "  only: [", f"  only: [{name}, ")


CATEGORIES = ("writing", "translation", "summarization", "qa", "math_reasoning", "rag")


def write_questions(folder: Path) -> None:
    """A file of Spec-Bench's form with a question of each kind, where the overlay looks for it."""
    path = folder / "data/spec_bench/question.jsonl"
    path.parent.mkdir(parents=True)
    records = [{"question_id": 1, "category": name, "turns": ["Who?", "When?"]} for name in CATEGORIES]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def checkpoint(study: Checkout) -> Path:
    """A folder that `transformers` loads: the tiny study's own model."""
    shown = study.ask("show", "baseline")
    return Path(re.findall(r"input +model: (\S+)/manifest.json", shown)[0])


def parts(page: str) -> dict[str, list[str | Block]]:
    """Text and fenced blocks under each heading of the second level, in order."""
    found: dict[str, list[str | Block]] = {}
    for part in (ROOT / page).read_text().split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        # Text, language, block, text, and so on.
        first, *rest = FENCED.split(body)
        found[heading] = [first]
        for language, block, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            found[heading] += [Block(language, block), text]
    return found


def said_to_be_stale(text: str) -> list[tuple[set[str], dict[str, int]]]:
    """Each statement of a text: rules whose results no longer count, and how many jobs of a rule are new."""
    return [
        (
            set(re.findall(r"`(\w+)`", stale)),
            {rule: 1 if count == "one" else int(count) for count, rule in re.findall(r"(\w+) `(\w+)`", new)},
        )
        for stale, new in STALE_NOW.findall(" ".join(text.split()))
    ]


def planned_jobs(study: Checkout) -> dict[str, str]:
    """Rule of each job of the tiny study by its digest, as its code plans it now; records are left out."""
    command = [sys.executable, "-c", PLAN, "config.yaml", TINY]
    done = subprocess.run(
        command, cwd=study.path, env=study.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def became(before: dict[str, str], after: dict[str, str]) -> tuple[set[str], dict[str, int]]:
    """What two plans of one study differ in: rules all of whose jobs are stale, and new jobs by rule.

    Raises:
        AssertionError: of a rule some jobs are stale and others are not.
    """
    stale = {before[digest] for digest in before.keys() - after.keys()}
    kept = {before[digest] for digest in before.keys() & after.keys()}
    assert not stale & kept, f"stale in part: {sorted(stale & kept)}"
    return stale, dict(Counter(after.values()) - Counter(before.values()))
