"""The commands and edits that the documentation shows, ready to be run on the tiny study."""

import re
import shlex
import sys
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


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its lines."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Fenced blocks of a page, in order."""
    text = (ROOT / page).read_text()
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


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
    """Fill in DIGEST: that of the experiment of `--label`, else of the baseline, or of its model."""
    if "DIGEST" not in command:
        return command
    label = re.search(r"--label (\w+)", command)
    shown = study.ask("show", label[1] if label else "baseline")
    (model,) = re.findall(r"input +model: results/model/(\w+)/", shown)
    (digest, *_) = re.findall(r"^record +results/record/(\w+)\.json", shown, re.MULTILINE)
    return command.replace("results/model/DIGEST", f"results/model/{model}").replace("DIGEST", digest)


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


def checkpoint(study: Checkout) -> Path:
    """A folder that `transformers` loads: the tiny study's own model."""
    shown = study.ask("show", "baseline")
    return Path(re.findall(r"input +model: (\S+)/manifest.json", shown)[0])
