"""Kills a small study at random moments and runs it again: nothing that was finished may change.

``python -m tests.workflow.kill_storm FOLDER`` (about half an hour) prints a line per kill and ends with 0 if
the study came out as one that nobody killed: same rows, same quality, blocks and records finished before a
kill kept byte by byte, and no process ever reading half a file. A third of the kills each meet the process of
a panel, snakemake, and both.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import psutil
from tqdm import tqdm

from ablations.core.artefact import open_artefact
from ablations.core.record import read_record
from ablations.evidence.join import DecodeBlock, PrefillBlock, ReplayBlock, RetrievalBlock, TextBlock
from ablations.evidence.records import DecodeRecord, SdtpRecord
from tests.workflow.conftest import TINY, Checkout, clone

OVERLAYS = ("tests/slurm/study.yaml", "tests/workflow/replays.yaml")
COMMAND = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", TINY, *OVERLAYS]
# Many blocks, so that most kills come between two of a series.
BLOCKS = ["--config", 'panel={"documents": 2}']
SDTP_BLOCKS = {"text": TextBlock, "retrieval": RetrievalBlock, "prefill": PrefillBlock}
DECODING_BLOCKS = {
    "ablations.dynatree.decode": DecodeBlock,
    "ablations.dynatree.replay_arms": ReplayBlock,
}
# What a sample, or a replay, says besides times and prices.
QUALITY = {
    *("document", "kind", "nll", "reference_nll", "kl", "agreement", "living", "boundary_bytes"),
    *("prompt_tokens", "new_tokens", "stopped", "matched", "ties", "repeated_4grams"),
    *("target_forwards", "drafted", "accepted", "accepted_per_round"),
}
Victim = Literal["a panel", "snakemake", "both"]
VICTIMS: tuple[Victim, ...] = ("a panel", "snakemake", "both")
OF_A_DEATH = re.compile(
    "took its process down|ended at what all its jobs share|^error: not (done|measured): "
)
"""What may be said after a panel's process was killed."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.workflow.kill_storm", description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder for the studies")
    parser.add_argument("--kills", type=int, default=30, help="how often to kill")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--longest", type=float, default=40, help="latest moment of a kill, seconds")
    parser.add_argument(
        "--workflow-profile", help="profile of Snakemake instead of profiles/default; `none`, say"
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    profile = arguments.workflow_profile
    # Without the default one Snakemake asks for this where a rendering was killed.
    flags = () if profile is None else ("--workflow-profile", profile, "--rerun-incomplete")
    storm(arguments.folder, arguments.kills, random.Random(arguments.seed), arguments.longest, flags)


def storm(
    folder: Path, kills: int, moments: random.Random, longest: float, flags: tuple[str, ...] = ()
) -> None:
    """Kill and restart so often; start over when the study is finished.

    Args:
        folder: Where the studies go.
        kills: How often.
        moments: Draws the moments.
        longest: Latest moment, seconds.
        flags: Further options of Snakemake.

    Raises:
        AssertionError: something was lost, changed, or read half-written.
    """
    flags = (*flags, *BLOCKS)
    calm = clone(folder / "calm")
    finish(calm, flags)
    expected = quality(calm)
    print(f"without kills: {len(expected)} records, {len(calm.blocks())} blocks and their rows")
    studies, kept = 0, 0
    study, before = clone(folder / "study"), {}
    for number in tqdm(range(kills), desc="kills", mininterval=2):
        moment = moments.uniform(1, longest)
        victim = VICTIMS[number % len(VICTIMS)]
        killed, ended = run_and_kill(study, moment, victim, flags)
        after = checked(study)
        assert before.items() <= after.items(), "a finished block or record changed or was lost"
        kept += len(before)
        print(
            f"kill {number + 1}: from {moment:4.1f} s on, {victim if killed else 'nobody, it was finished'};"
            f" {len(after)} blocks and records finished",
            flush=True,
        )
        before = after
        if ended:
            assert quality(study) == expected
            shutil.rmtree(study.path)
            studies, study, before = studies + 1, clone(folder / "study"), {}
    unlock(study, flags)
    finish(study, flags)
    assert before.items() <= finished(study).items(), "a finished block or record changed or was lost"
    assert quality(study) == expected
    print(
        f"{kills} kills, {studies + 1} finished studies: the same {len(expected)} rows and quality each time,"
        f" {kept} times a block or record outlived a kill unchanged, nothing half-written was read"
    )


def run_and_kill(study: Checkout, moment: float, victim: Victim, flags: tuple[str, ...]) -> tuple[bool, bool]:
    """Run for so many seconds, then kill, a panel as soon as one runs.

    Returns:
        Whether somebody was killed, and whether the study is finished.
    """
    unlock(study, flags)
    log = study.path / "storm.log"
    with log.open("w") as out:
        head = subprocess.Popen(
            [*COMMAND, *flags, "--", "paper/ablation.tex"],
            cwd=study.path,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end, killed, jobs = time.monotonic() + moment, False, []
    while not killed and head.poll() is None:
        time.sleep(0.05)
        if time.monotonic() < end:
            continue
        jobs = psutil.Process(head.pid).children(recursive=True)
        if victim == "a panel":
            killed = kill_panel(jobs)
        elif victim == "both":
            os.killpg(head.pid, signal.SIGKILL)
            killed = True
        else:
            head.kill()
            killed = True
    code = head.wait()
    # Jobs that outlive their head are left to finish, as the documentation says.
    psutil.wait_procs(jobs)
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    if victim == "a panel":
        errors = [line for line in errors if not OF_A_DEATH.search(line)]
    assert not errors, log.read_text()
    assert killed or code == 0, log.read_text()
    return killed, code == 0


def kill_panel(processes: list[psutil.Process]) -> bool:
    """Kill a process that does a panel's work, not its supervisor; False where there is none."""
    for process in processes:
        try:
            words = process.cmdline()
            if "--panel" in words and "ablations.core.supervise" not in words and "-m" in words:
                process.kill()
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def unlock(study: Checkout, flags: tuple[str, ...]) -> None:
    """Take away the lock that a killed snakemake leaves."""
    subprocess.run([*COMMAND, *flags, "--unlock"], cwd=study.path, check=True, capture_output=True)


def finish(study: Checkout, flags: tuple[str, ...]) -> None:
    """Run to the end."""
    done = subprocess.run(
        [*COMMAND, *flags, "--", "paper/ablation.tex"],
        cwd=study.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def finished(study: Checkout) -> dict[str, bytes]:
    """All blocks and records that are there."""
    return study.blocks() | study.records()


def checked(study: Checkout) -> dict[str, bytes]:
    """All blocks and records, after checking that they and every artefact are whole."""
    for path in (study.path / "results/record").glob("*.json"):
        sdtp = json.loads(path.read_text())["module"].startswith("ablations.sdtp")
        read_record(path, SdtpRecord if sdtp else DecodeRecord)
    for path in (study.path / "results/block").glob("*/[!.]*.json"):
        content = json.loads(path.read_text())
        measure = content["spec"].get("measure")
        block = read_record(path, SDTP_BLOCKS[measure] if measure else DECODING_BLOCKS[content["module"]])
        first, end = map(int, path.stem.split("-"))
        assert len(block.samples) == end - first, path
    for path in (study.path / "results").glob("*/*/manifest.json"):
        open_artefact(path)
    return finished(study)


def quality(study: Checkout) -> dict[str, list]:
    """All that was measured but times, by name of the record."""
    found = {}
    for name, content in study.records().items():
        record = json.loads(content)
        samples = [
            {key: value for key, value in sample.items() if key in QUALITY}
            for sample in (*record["samples"], *record["totals"].get("replays", ()))
        ]
        found[name] = [record["label"], record["outcome"], samples, record["totals"].get("retrieval")]
    return found


if __name__ == "__main__":
    main()
