"""One file with all that a study's paper is made of, and the paper from that file alone.

python -m ablations.paper.archive pack --out results/archive.tar.gz
python -m ablations.paper.archive build results/archive.tar.gz --out elsewhere
"""

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ablations.core.artefact import Manifest
from ablations.core.errors import UserError, one_line_errors, require_out
from ablations.core.files import atomic_path, canonical_json, sha256_file, sha256_text, write_text
from ablations.core.record import read_contract
from ablations.evidence.inputs import PaperInput
from ablations.evidence.records import series_of
from ablations.paper.collect import summarise
from ablations.paper.figures import write_figures
from ablations.paper.numbers import write_numbers
from ablations.paper.section import render_section
from ablations.paper.tables import write_tables
from ablations.specs.userfiles import root
from ablations.study.planning.stages import COLLECT_STAMP, GRID, JOIN, SPEC, SUMMARY, SWEEP

CONTENTS = "archive.json"


def pack(plan_path: Path, out: Path) -> int:
    """Write the archive of a finished study; the same study gives the same bytes.

    It holds the plan, every record with its bulky rows, its spec and those of the series that it is joined
    from, sweeps, grids, the saliency table, the manifests of the models, and `archive.json`, which names the
    SHA-256 of each file. A record holds all samples of its blocks, which are left out.

    Args:
        plan_path: Stamp of the rule `collect`; paths in it are relative to the working directory.
        out: Archive to write.

    Returns:
        How many files it holds.

    Raises:
        UserError: there is no plan, or a record does not fit its digest.
    """
    plan = read_contract(plan_path, PaperInput)
    files = {COLLECT_STAMP: plan_path} | {str(path): path for path in _needed(plan)}
    for name, path in files.items():
        check_digest(name, path.read_bytes())
    contents = {"study": plan.study, "files": {name: sha256_file(files[name]) for name in sorted(files)}}
    text = json.dumps(contents, indent=1) + "\n"
    with (
        atomic_path(out) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, CONTENTS, text.encode())
        for name in sorted(files):
            _add(tar, name, files[name].read_bytes())
    return len(files)


def _needed(plan: PaperInput) -> Iterator[Path]:
    """Files of the study that the paper is made of, as far as they are there."""
    records = [path for item in plan.experiments for path in item.records]
    for path in map(Path, dict.fromkeys(records)):
        specs = (Path(SPEC.format(digest=series)) for series in series_of(path))
        yield from (spec for spec in specs if path.is_file() and spec.is_file())
    for path in map(Path, dict.fromkeys([*records, *plan.sweeps, *plan.grids.values()])):
        spec, rows = Path(SPEC.format(digest=path.stem)), path.with_suffix(".rows.jsonl")
        yield from (item for item in (path, spec, rows) if item.is_file())
    yield from (path for path in map(Path, plan.manifests.values()) if path.is_file())
    if plan.saliency and Path(plan.saliency).is_file():
        manifest = Path(plan.saliency)
        yield manifest
        yield from (manifest.parent / name for name in read_contract(manifest, Manifest).files)


def check_digest(name: str, content: bytes) -> None:
    """Check that a result is what its file name says: the digest of its spec, code, inputs and pins.

    Raises:
        UserError: it is not.
    """
    path = PurePosixPath(name)
    if path.suffix != ".json" or path.parent.name not in _MODULES:
        return
    try:
        record = json.loads(content)
        digests: dict[str, Any] = record["digests"]
        spec = sha256_text(canonical_json(record["spec"]))
        determined = {
            "module": _MODULES[path.parent.name],
            "spec_digest": digests["spec"],
            "code_digest": digests["code"],
            "input_digests": digests["inputs"],
            "pins": digests["pins"],
        }
        job = sha256_text(canonical_json(determined))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{name}: damaged; it has no spec and digests to check") from None
    if not spec.startswith(digests["spec"]) or not digests["spec"]:
        raise UserError(f"{name}: its spec is not the one of its digest; it was edited")
    if digests["job"] != path.stem or not job.startswith(path.stem):
        raise UserError(f"{name}: its digests do not give its name; it was edited or renamed")


_MODULES = {"record": JOIN.module, "sweep": SWEEP.module, "grid": GRID.module}
"""Module whose job makes a result, by the result's folder."""


def unpack(archive: Path, folder: Path) -> None:
    """Lay an archive's files out in an empty folder, after checking each of them.

    Raises:
        UserError: the archive is damaged, a file is not the one that was packed, or a record does not fit
            its digest.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: not empty; name a new folder with --out")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            found = {item.name: tar.extractfile(item).read() for item in tar if item.isfile()}
        promised: dict[str, str] = json.loads(found.pop(CONTENTS))["files"]
    except FileNotFoundError:
        raise UserError(f"{archive}: no such file") from None
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError) as error:
        raise UserError(f"{archive}: not an archive of a study, or damaged ({error})") from None
    if odd := sorted(found.keys() ^ promised.keys()):
        raise UserError(f"{archive}: {odd[0]} is in the archive or in {CONTENTS}, not in both")
    for name, content in found.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{archive}: {name} points out of the archive")
        if hashlib.sha256(content).hexdigest() != promised[name]:
            raise UserError(f"{archive}: {name} is not the file that was packed (its SHA-256 differs)")
        check_digest(name, content)
    for name, content in found.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)


def build(archive: Path, paper: Path, folder: Path) -> None:
    """Write the section, its tables, figures and numbers from an archive into `folder`/paper.

    Args:
        archive: What `pack` wrote.
        paper: Folder with `templates`, `main.tex` and `references.bib`.
        folder: New folder.

    Raises:
        UserError: see `unpack`.
    """
    paper = paper.resolve()
    unpack(archive, folder)
    for name in ("main.tex", "references.bib"):
        (folder / "paper").mkdir(exist_ok=True)
        shutil.copyfile(paper / name, folder / "paper" / name)
    with contextlib.chdir(folder):
        summary = summarise(read_contract(Path(COLLECT_STAMP), PaperInput))
        templates, out = paper / "templates", Path("paper")
        write_text(Path(SUMMARY), summary.model_dump_json(indent=1) + "\n")
        write_tables(summary, templates, out / "tables")
        write_figures(summary, out / "figures")
        write_numbers(summary, templates, out / "numbers.tex", out / "provenance.json")
        write_text(out / "ablation.tex", render_section(summary, templates))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # A fresh entry has no time, owner or mode of this machine.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def main() -> None:
    """Command line of the rule `archive`, and of whoever has its file."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.archive",
        description="Pack all that a study's paper is made of, or build the paper from such a file.",
        epilog="example: python -m ablations.paper.archive build results/archive.tar.gz --out elsewhere",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write the archive of the study in the working directory")
    packing.add_argument("--plan", type=Path, default=Path(COLLECT_STAMP), help="stamp of the rule collect")
    packing.add_argument("--out", type=Path, required=True, help="archive to write")
    building = commands.add_parser("build", help="check an archive and write its paper")
    building.add_argument("archive", type=Path, help="what `pack` wrote")
    building.add_argument(
        "--paper", type=Path, default=root() / "paper", help="folder of templates and main.tex"
    )
    building.add_argument("--out", type=Path, required=True, help="new folder; the paper is in its paper/")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out if arguments.command == "pack" else arguments.out / CONTENTS)
        if arguments.command == "pack":
            print(f"packed {pack(arguments.plan, arguments.out)} files into {arguments.out}")
            return
        build(arguments.archive, arguments.paper, arguments.out)
        print(f"wrote {arguments.out / 'paper' / 'ablation.tex'}")


if __name__ == "__main__":
    main()
