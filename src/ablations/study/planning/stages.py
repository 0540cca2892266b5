"""The stages of a study: which module runs each, and where its results lie."""

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path("results")


@dataclass(frozen=True)
class Stage:
    """One rule of the workflow whose results are named by digests."""

    rule: str
    module: str
    result: str
    """Path of a result, with ``{digest}``; the job's `--out`."""

    def path(self, digest: str) -> Path:
        """Path of the result named `digest`."""
        return Path(self.result.format(digest=digest))


def _artefact(kind: str) -> str:
    return f"{RESULTS}/{kind}/{{digest}}/manifest.json"


RECORD = f"{RESULTS}/record/{{digest}}.json"
SPEC = f"{RESULTS}/spec/{{digest}}.json"
CONFIG = f"{RESULTS}/config/{{digest}}.json"
CODE = f"{RESULTS}/code/{{digest}}.json"
DAMAGE = f"{RESULTS}/damage/{{digest}}.json"
SHARD = f"{RESULTS}/shard/{{digest}}.{{scatteritem}}.json"
# As Snakemake's `gather` takes it, which fills in the shares and leaves the digest.
SHARDS = SHARD.replace("{digest}", "{{digest}}")

PREPARE_MODEL = Stage("prepare_model", "ablations.lm.prepare_model", _artefact("model"))
PREPARE_TEXT = Stage("prepare_text", "ablations.lm.prepare_text", _artefact("text"))
SALIENCY = Stage("saliency", "ablations.sdtp.saliency", _artefact("saliency"))
TRAIN_PRUNER = Stage("train_pruner", "ablations.sdtp.train", _artefact("pruner"))
REFERENCE = Stage("reference", "ablations.sdtp.reference", _artefact("reference"))
CALIBRATE = Stage("calibrate", "ablations.sdtp.calibrate", _artefact("calibration"))
EVALUATE_SDTP = Stage("evaluate_sdtp", "ablations.sdtp.evaluate", RECORD)
EVALUATE_PIPELINE = Stage("evaluate_pipeline", "ablations.sdtp.evaluate_pipeline", RECORD)
SWEEP = Stage("sweep", "ablations.sdtp.sweep", f"{RESULTS}/sweep/{{digest}}.json")
FIT_NGRAM = Stage("fit_ngram", "ablations.dynatree.fit_ngram", _artefact("ngram"))
DISTIL_TEACHER = Stage("distil_teacher", "ablations.dynatree.distil_teacher", _artefact("teacher"))
WRITTEN = f"{RESULTS}/written/{{digest}}.jsonl"
DISTIL = Stage("distil", "ablations.dynatree.distil", _artefact("draft"))
CALIBRATE_COSTS = Stage("calibrate_costs", "ablations.dynatree.calibrate_costs", _artefact("costs"))
DECODE = Stage("decode", "ablations.dynatree.decode", RECORD)
BENCHMARK = Stage("benchmark", "ablations.dynatree.benchmark", f"{RESULTS}/benchmark/{{digest}}.json")
GRID = Stage("grid", "ablations.dynatree.grid", f"{RESULTS}/grid/{{digest}}.json")

SUMMARY = f"{RESULTS}/summary.json"
STAMP = f"{RESULTS}/stamp/{{rule}}.json"
COLLECT_STAMP = STAMP.format(rule="collect")
TABLES_STAMP = STAMP.format(rule="tables")
FIGURES_STAMP = STAMP.format(rule="figures")
SECTION_STAMP = STAMP.format(rule="ablation_section")
PAGE_STAMP = STAMP.format(rule="results_page")
NUMBERS_STAMP = STAMP.format(rule="numbers")
BENCHMARK_STAMP = STAMP.format(rule="benchmark_table")
PDF_STAMP = STAMP.format(rule="ablation_pdf")
ARCHIVE_STAMP = STAMP.format(rule="archive")
WRITTEN_STAMP = STAMP.format(rule="write_down")
BENCHMARK_SUMMARY = f"{RESULTS}/benchmark/decoding.json"
BENCHMARK_TABLE = f"{RESULTS}/benchmark/decoding.md"
TABLES = [
    f"paper/tables/{name}.tex"
    for name in (
        *(
            "sdtp_matrix",
            "sdtp_matrix_column",
            "decoding_column",
            "decoding_backward_column",
            "sdtp_further",
            "sdtp_quality",
            "sdtp_cost",
            "sdtp_ranking",
            "sdtp_pipeline",
        ),
        *("sweep", "decoding", "decoding_backward", "decoding_adaptation", "decoding_drafter"),
        *("decoding_neural", "decoding_further", "decoding_kinds", "decoding_rounds", "grid", "published"),
    )
]
FIGURES = [
    f"paper/figures/{name}.{kind}"
    for name in (
        "keep_ratio",
        "bound",
        "sweep",
        "losses",
        "living",
        "saliency",
        "traffic",
        "rounds",
        "forward",
        "depth",
        "backward",
        "grid",
        "grid_trees",
        "grid_lengths",
    )
    for kind in ("pdf", "png")
]
MACROS = "paper/numbers.tex"
PROVENANCE = "paper/provenance.json"
PAGE = "paper/results.html"
ARCHIVE = f"{RESULTS}/archive.tar.gz"
PAPER_SOURCES = ("paper/main.tex", "paper/references.bib")
SECTION = "paper/ablation.tex"
PDF = "paper/ablation.pdf"
