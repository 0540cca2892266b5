"""Mutations of what is no source: templates, pins, texts, artefacts, times, Snakemake's notes, rules."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.workflow.mutations.closure import jobs_that_compute_with
from tests.workflow.mutations.jobs import (
    ACCEPTANCE,
    BENCHMARK,
    BENCHMARK_TABLE,
    CALIBRATION,
    CHAT,
    CHAT_VALIDATION,
    CODE,
    COSTS,
    DISTILLED,
    NGRAM,
    PREFILL,
    PRUNER,
    PYTHON,
    RENDERING,
    SALIENCY,
    TARGET,
    TARGET_COSTS,
    TEACHER,
    WRITTEN,
    decode_and_replay,
    evaluate,
    join,
    replay,
    stale,
)
from tests.workflow.mutations.naming import made_by
from tests.workflow.mutations.study import Mutation, Study

_ONCE_MORE = RENDERING | {BENCHMARK_TABLE, "written"}
"""What may run once more where neither times nor Snakemake's notes say that it is fresh."""


def _template(name: str, *rules: str) -> Mutation:
    """A template with one more line, and the rules that render with it."""
    # In YAML a line must not start with a per cent sign.
    more = "\n# a word more\n" if name.endswith(".yaml") else "\n%# a word more\n"
    # What tables and numbers become is part of the section.
    return Mutation(
        f"template {name}",
        lambda study: study.append(f"paper/templates/{name}", more),
        stale(rules),
    )


TEMPLATES = [
    _template("ablation.tex.j2", "section"),
    _template("setup.tex.j2", "section"),
    _template("floats/bound.tex.j2", "section"),
    _template("prose.tex.j2", "section"),
    _template("sdtp_matrix.tex.j2", "tables"),
    _template("decoding_part.tex.j2", "tables"),
    _template("preamble.tex.j2", "tables"),
    _template("longtable.tex.j2", "tables"),
    _template("published.tex.j2", "tables"),
    _template("published.yaml", "tables"),
    _template("numbers.tex.j2", "numbers"),
    _template("page/results.html.j2", "page"),
    _template("page/results.css", "page"),
]


def _pin(name: str, *imports: str) -> Mutation:
    """Another version of a library, and the jobs whose modules import it."""

    def edit(study: Study) -> None:
        path = study.path / "constraints.txt"
        lines = path.read_text().splitlines()
        (place,) = [index for index, line in enumerate(lines) if line.startswith(f"{name}==")]
        lines[place] += ".1"
        path.write_text("\n".join([*lines, ""]))

    return Mutation(f"pin of {name}", edit, stale(set().union(*map(jobs_that_compute_with, imports))))


PINS = [
    _pin("torch", "torch"),
    _pin("transformers", "transformers"),
    # Models and tokenizers reach it through transformers.
    _pin("tokenizers", "transformers"),
    _pin("numpy", "numpy"),
    _pin("scipy", "scipy"),
    _pin("pandas", "pandas"),
    _pin("seaborn", "seaborn"),
    _pin("matplotlib", "matplotlib"),
    _pin("Jinja2", "jinja2"),
    _pin("pytest"),
    _pin("tqdm"),
    Mutation("comments in constraints.txt", lambda study: study.append("constraints.txt", "# a comment\n")),
    Mutation(
        "lines of constraints.txt in reverse order",
        lambda study: _write_lines(study.path / "constraints.txt", reversed),
    ),
]


def _write_lines(path: Path, order: Callable[[list[str]], object]) -> None:
    path.write_text("\n".join([*order(path.read_text().splitlines()), ""]))


def _same_bytes(file: str) -> Mutation:
    def edit(study: Study) -> None:
        content = (study.path / file).read_bytes()
        (study.path / file).unlink()
        (study.path / file).write_bytes(content)

    return Mutation(f"{file} replaced by identical bytes", edit)


def _other_bytes(file: str, *readers: str) -> Mutation:
    return Mutation(
        f"{file} with one document more",
        lambda study: study.append(file, '{"text": "One more document."}\n'),
        stale(readers),
    )


TEXTS = [
    _same_bytes("texts/chat.jsonl"),
    _other_bytes("texts/chat.jsonl", CHAT),
    _other_bytes("texts/chat-validation.jsonl", CHAT_VALIDATION),
    _other_bytes("texts/written.jsonl", WRITTEN),
    _same_bytes("drafts/smollm2-135m-instruct.safetensors"),
]


_ARTEFACTS = (
    *("model", "text", "saliency", "pruner", "calibration"),
    *("ngram", "teacher", "draft", "target_costs", "acceptance", "costs"),
)


def _made_by(study: Study, job: str) -> Path:
    """Manifest of the artefact that a job made."""
    for manifest in (study.path / f"results/{_folder(job)}").glob("*/manifest.json"):
        if made_by(study.path, manifest.parent.name) == job:
            return manifest
    raise AssertionError(f"{job} has made nothing")


def _folder(job: str) -> str:
    """Kind of the artefact that a job makes."""
    return job.split()[0]


def _largest(manifest: Path) -> Path:
    files = [path for path in manifest.parent.rglob("*") if path.is_file() and path != manifest]
    return max(files, key=lambda path: path.stat().st_size)


def _flip(path: Path) -> None:
    """Change one byte of a file, and neither its size nor its time by much."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _damage(job: str) -> Mutation:
    return Mutation(
        f"a byte changed in the artefact of '{job}'",
        lambda study: _damaged(study, job),
        RENDERING | {job},
    )


def _damaged(study: Study, job: str) -> None:
    _flip(_largest(_made_by(study, job)))


def _damaged_and_needed(study: Study) -> None:
    _damaged(study, PRUNER)
    study.set("sdtp.ablations.A7.change.schedule.keep_ratio", 0.55)


def _damaged_and_forgotten(study: Study) -> None:
    _damaged(study, TARGET)
    _forget(study, "A7", "quality", "retrieval", "prefill")


def _damaged_acceptance_and_forgotten(study: Study) -> None:
    _damaged(study, ACCEPTANCE["ngram"])
    _forget(study, "NG", "replay code")


def _damaged_and_renamed(study: Study) -> None:
    _damaged(study, PRUNER)
    study.set("sdtp.ablations.A7.title", "Another title")


def _blocks(study: Study) -> Path:
    return study.path / "results/block"


def _forget(study: Study, label: str, *series: str) -> None:
    """Delete the records of an experiment, and the blocks of its series whose names end so."""
    for path in (study.path / "results/record").glob("*.json"):
        if f'"label": "{label}"' in path.read_text():
            path.unlink()
    for folder in _blocks(study).iterdir():
        labelled = any(f'"label": "{label}"' in path.read_text() for path in folder.glob("*.json"))
        if labelled and made_by(study.path, folder.name).endswith(series):
            shutil.rmtree(folder)


def _half_written(study: Study) -> None:
    """The temporary file of a block that a kill cut short, where the block itself is there too."""
    folder = next(_blocks(study).iterdir())
    (folder / ".0-6.json.abc.tmp").write_text('{"schema_version": 1,')


ARTEFACTS = [
    *(
        _damage(job)
        for job in (
            *(TARGET, PYTHON, SALIENCY, PRUNER, CALIBRATION),
            *(NGRAM, TEACHER, DISTILLED, TARGET_COSTS),
            *(ACCEPTANCE["ngram"], COSTS["hybrid"], COSTS["neural"]),
        )
    ),
    Mutation(
        "a file of an artefact deleted",
        lambda study: _largest(_made_by(study, NGRAM)).unlink(),
        RENDERING | {NGRAM},
    ),
    Mutation(
        "a manifest cut in the middle",
        lambda study: os.truncate(_made_by(study, NGRAM), 100),
        RENDERING | {NGRAM},
    ),
    Mutation(
        "a damaged artefact and a new experiment that reads it",
        _damaged_and_needed,
        stale({*evaluate("A7")}) | {PRUNER},
    ),
    Mutation(
        "a damaged model and a lost experiment, with whole artefacts between them",
        _damaged_and_forgotten,
        stale({*evaluate("A7")}) | {TARGET},
    ),
    Mutation("a damaged artefact and a new title", _damaged_and_renamed, RENDERING | {PRUNER}),
    Mutation("an artefact deleted", lambda study: shutil.rmtree(_made_by(study, PRUNER).parent)),
    Mutation(
        "all artefacts deleted",
        lambda study: [shutil.rmtree(study.path / "results" / kind) for kind in _ARTEFACTS],
    ),
    Mutation(
        "records of an experiment deleted, whose blocks are there",
        lambda study: _forget(study, "A9"),
        stale(join("A9")),
    ),
    Mutation(
        "records of a decoding experiment deleted, whose blocks are there",
        lambda study: _forget(study, "D1"),
        stale(join("D1")),
    ),
    Mutation(
        "records and blocks of an experiment deleted",
        lambda study: _forget(study, "A9", "quality", "retrieval", "prefill"),
        stale(evaluate("A9")),
    ),
    Mutation(
        "records and blocks of a decoding experiment deleted",
        lambda study: _forget(study, "D1", "code", "documentation", "chat"),
        stale(decode_and_replay("D1")),
    ),
    Mutation(
        "records of an experiment deleted, and its blocks of one measure",
        lambda study: _forget(study, "A9", "prefill"),
        stale(evaluate("A9", measures=[PREFILL])),
    ),
    Mutation(
        "records of an experiment deleted, and its blocks of one kind of prompts",
        lambda study: _forget(study, "D1", "code"),
        stale(decode_and_replay("D1", kinds=[CODE])),
    ),
    Mutation(
        "records of an experiment deleted, and its replays of one kind of prompts",
        lambda study: _forget(study, "D1", "replay code"),
        stale(replay("D1", kinds=[CODE])),
    ),
    Mutation(
        "a damaged drafter's acceptance and lost replays of what drafts with it",
        _damaged_acceptance_and_forgotten,
        stale(replay("NG", kinds=[CODE])) | {ACCEPTANCE["ngram"]},
    ),
    Mutation(
        "costs of a drafter deleted, and the record of what is priced by them",
        lambda study: (shutil.rmtree(_made_by(study, COSTS["ngram"]).parent), _forget(study, "NG")),
        stale(join("NG")) | {COSTS["ngram"]},
    ),
    Mutation("all blocks deleted, whose records are there", lambda study: shutil.rmtree(_blocks(study))),
    Mutation("all panels and receipts deleted", lambda study: shutil.rmtree(study.path / "results/panel")),
    Mutation("what a killed panel leaves beside its blocks", _half_written),
    Mutation(
        "the benchmark's record deleted",
        lambda study: [
            path.unlink()
            for path in (study.path / "results/benchmark").glob("*.json")
            if path.stem != "decoding"
        ],
        stale({BENCHMARK}),
    ),
    Mutation(
        "a table deleted",
        lambda study: (study.path / "paper/tables/decoding.tex").unlink(),
        frozenset({"tables", "section"}),
    ),
    Mutation(
        "a figure deleted",
        lambda study: (study.path / "paper/figures/forward.pdf").unlink(),
        frozenset({"figures", "section"}),
    ),
    Mutation("the summary deleted", lambda study: (study.path / "results/summary.json").unlink(), RENDERING),
    # The paper says that the plan of its family was written down late.
    Mutation("the plan deleted", lambda study: (study.path / "results/family.json").unlink(), RENDERING),
    Mutation(
        "logs and benchmarks deleted",
        lambda study: [shutil.rmtree(study.path / folder) for folder in ("logs", "benchmarks")],
    ),
]
"""What was built: damaged, lost."""


def _files(study: Study) -> list[Path]:
    return sorted(path for path in study.path.rglob("*") if path.is_file() and ".snakemake" not in path.parts)


def _touch_all(study: Study) -> None:
    for path in _files(study):
        path.touch()


def _scramble_times(study: Study) -> None:
    files = _files(study)
    random.Random(0).shuffle(files)
    for index, path in enumerate(files):
        os.utime(path, (1_700_000_000 + index, 1_700_000_000 + index))


def _without_notes(study: Study) -> None:
    shutil.rmtree(study.path / ".snakemake")


def _fresh_clone(study: Study, *kept: str) -> None:
    """The repository's own files and some of what was built, all of it with new times."""
    built = ("results", "logs", "benchmarks", "paper/tables", "paper/figures")
    built += ("paper/ablation.tex", "paper/numbers.tex", "paper/provenance.json", "paper/results.html")
    _without_notes(study)
    for name in built:
        path = study.path / name
        if name not in kept and path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _touch_all(study)


TIMES = [
    Mutation("everything touched", _touch_all, allowed=_ONCE_MORE),
    Mutation("times scrambled", _scramble_times, allowed=_ONCE_MORE),
    Mutation(".snakemake deleted", _without_notes),
    Mutation(
        ".snakemake deleted and times scrambled",
        lambda study: (_without_notes(study), _scramble_times(study)),
        allowed=_ONCE_MORE,
    ),
    Mutation(
        "a fresh clone with results/ copied in",
        lambda study: _fresh_clone(study, "results"),
        RENDERING - {"collect", "archive"},
        allowed=_ONCE_MORE,
    ),
    Mutation(
        "a fresh clone with results/record copied in",
        lambda study: (
            [
                shutil.rmtree(path)
                for path in (study.path / "results").iterdir()
                if path.is_dir() and path.name not in ("record", "sweep", "grid", "benchmark", "written")
            ],
            _fresh_clone(study, "results"),
        ),
        RENDERING - {"collect", "archive"},
        # What is written once more reads a teacher, which is not among what was copied.
        allowed=_ONCE_MORE | {TEACHER, TARGET, PYTHON},
    ),
]


def _rule(file: str, old: str, new: str) -> Mutation:
    return Mutation(f"{file}: {old} -> {new}", lambda study: study.replace(file, old, new))


RULES = [
    _rule("workflow/rules/jobs.smk", 'f"logs/{stage.rule}/{{digest}}.log"', 'f"logs/other/{{digest}}.log"'),
    _rule("workflow/rules/jobs.smk", 'f"logs/{stage.rule}/{{panel}}.log"', 'f"logs/other/{{panel}}.log"'),
    _rule(
        "workflow/rules/jobs.smk",
        'f"benchmarks/{stage.rule}/{{digest}}.tsv"',
        'f"benchmarks/other/{{digest}}.tsv"',
    ),
    _rule("workflow/rules/jobs.smk", "threads: job_threads", "threads: 1"),
    _rule(
        "workflow/rules/jobs.smk",
        "**resources_of[stage.takes],",
        "**resources_of[stage.takes],\n                disk_mb=10,",
    ),
    _rule("workflow/rules/jobs.smk", '"../../envs/measure.yaml"', '"../../envs/paper.yaml"'),
    Mutation("comments in a rule file", lambda study: study.append("workflow/rules/jobs.smk", "\n# why\n")),
    Mutation("envs/measure.yaml edited", lambda study: study.append("envs/measure.yaml", "# a comment\n")),
    Mutation("README.md edited", lambda study: study.append("README.md", "One more sentence.\n")),
]

FILES = [*TEMPLATES, *PINS, *TEXTS, *ARTEFACTS, *TIMES, *RULES]
