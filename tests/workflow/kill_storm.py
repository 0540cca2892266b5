"""Kills a small study at random moments and runs it again: nothing that was finished may change.

``python -m tests.workflow.kill_storm FOLDER`` (about 20 minutes) prints a line per kill and ends with 0 if
the study came out as one that nobody killed: same rows, same quality, records finished before a kill kept
byte by byte, and no job ever reading half a file.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from tqdm import tqdm

from ablations.core.artefact import open_artefact
from ablations.core.record import read_record
from ablations.evidence.records import DecodeRecord, SdtpRecord
from tests.workflow.conftest import TINY, Checkout, clone

OVERLAY = "tests/slurm/study.yaml"
COMMAND = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", TINY, OVERLAY]
# What a sample says besides times.
QUALITY = {
    *("document", "kind", "nll", "reference_nll", "kl", "agreement", "living", "boundary_bytes"),
    *("prompt_tokens", "new_tokens", "stopped", "matched", "ties", "repeated_4grams"),
}


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
    calm = clone(folder / "calm")
    finish(calm, flags)
    expected = quality(calm)
    print(f"without kills: {len(expected)} records")
    studies, kept = 0, 0
    study, before = clone(folder / "study"), {}
    for number in tqdm(range(kills), desc="kills", mininterval=2):
        moment = moments.uniform(1, longest)
        everything = moments.random() < 0.5
        ended = run_and_kill(study, moment, everything, flags)
        after = checked(study)
        assert before.items() <= after.items(), "a finished record changed or was lost"
        kept += len(before)
        whom = "nobody, it was finished" if ended else "snakemake and its jobs" if everything else "snakemake"
        print(f"kill {number + 1}: after {moment:4.1f} s, {whom}; {len(after)} records finished", flush=True)
        before = after
        if ended:
            assert quality(study) == expected
            shutil.rmtree(study.path)
            studies, study, before = studies + 1, clone(folder / "study"), {}
    unlock(study, flags)
    finish(study, flags)
    assert before.items() <= records(study).items(), "a finished record changed or was lost"
    assert quality(study) == expected
    print(
        f"{kills} kills, {studies + 1} finished studies: the same {len(expected)} rows and quality each time,"
        f" {kept} times a record outlived a kill unchanged, nothing half-written was read"
    )


def run_and_kill(study: Checkout, moment: float, everything: bool, flags: tuple[str, ...]) -> bool:
    """Run for so many seconds, then kill; tell whether it had ended by itself, which must be well."""
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
    end = time.monotonic() + moment
    while time.monotonic() < end and head.poll() is None:
        time.sleep(0.05)
    ended = head.poll() is not None
    jobs = [] if ended else psutil.Process(head.pid).children(recursive=True)
    if everything and not ended:
        os.killpg(head.pid, signal.SIGKILL)
    elif not ended:
        head.kill()
    code = head.wait()
    # Jobs that outlive their head are left to finish, as the documentation says.
    psutil.wait_procs(jobs)
    assert "error: " not in log.read_text(), log.read_text()
    assert not ended or code == 0, log.read_text()
    return ended


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


def records(study: Checkout) -> dict[str, bytes]:
    """All records that are there."""
    return {path.name: path.read_bytes() for path in (study.path / "results/record").glob("*.json")}


def checked(study: Checkout) -> dict[str, bytes]:
    """All records, after checking that they and every artefact are whole."""
    for path in (study.path / "results/record").glob("*.json"):
        sdtp = json.loads(path.read_text())["module"].startswith("ablations.sdtp")
        read_record(path, SdtpRecord if sdtp else DecodeRecord)
    for path in (study.path / "results").glob("*/*/manifest.json"):
        open_artefact(path)
    return records(study)


def quality(study: Checkout) -> dict[str, list]:
    """All that was measured but times, by name of the record."""
    found = {}
    for name, content in records(study).items():
        record = json.loads(content)
        samples = [
            {key: value for key, value in sample.items() if key in QUALITY} for sample in record["samples"]
        ]
        found[name] = [record["label"], record["outcome"], samples]
    return found


if __name__ == "__main__":
    main()
