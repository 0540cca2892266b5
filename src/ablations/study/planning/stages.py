"""The stages of a study: what each of them runs, reads and makes, and where the paper's files lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablations.specs.dynatree.benchmark import BenchmarkSpec
from ablations.specs.dynatree.calibrate_costs import CostSpec
from ablations.specs.dynatree.calibrate_drafter import AcceptanceSpec
from ablations.specs.dynatree.calibrate_target import TargetCostSpec
from ablations.specs.dynatree.decode import DecodeSeries, DecodeSpec
from ablations.specs.dynatree.distil import DistilSpec
from ablations.specs.dynatree.distil_teacher import TeacherSpec
from ablations.specs.dynatree.fit_ngram import NgramSpec
from ablations.specs.dynatree.grid import GridSpec
from ablations.specs.dynatree.replay import ReplaySeries
from ablations.specs.lm import PrepareModelSpec, PrepareTextSpec
from ablations.specs.sdtp.calibrate import CalibrationSpec
from ablations.specs.sdtp.evaluate import Series
from ablations.specs.sdtp.record import EvaluateSpec
from ablations.specs.sdtp.saliency import SaliencySpec
from ablations.specs.sdtp.sweep import SweepSpec
from ablations.specs.sdtp.train import PrunerSpec

RESULTS = Path("results")


@dataclass(frozen=True)
class Stage:
    """One kind of job, and its rule in the workflow; digests name the results.

    Attributes:
        rule: Name of the rule.
        script: The module that runs a job, below this package.
        spec: Contract of a job's spec, or a union of several.
        result: Path of a result, with ``{digest}``; the folder of its blocks for a series.
        takes: `cpu`: the CPU alone; `model`: a device for a model; `timer`: a device that nobody else uses
            meanwhile, to measure times; `ranks`: such a device for each of its processes.
        message: What Snakemake says when a job starts, with the fields that it fills in.
        needs: Stages whose results a job may read.
        panel: Whether jobs that use one model run side by side in one process.
        passes_on: Failures of a panel's entries that do not fail the panel, but what needs their results:
            `errors` of their own, the ends of their processes too (`all`), or `nothing`.
    """

    rule: str
    script: str
    spec: Any
    result: str
    takes: Literal["cpu", "model", "timer", "ranks"]
    message: str
    needs: tuple["Stage", ...] = ()
    panel: bool = False
    passes_on: Literal["nothing", "errors", "all"] = "nothing"

    @property
    def module(self) -> str:
        """The module that runs a job, as ``python -m`` takes it."""
        return f"ablations.{self.script}"

    @property
    def has_blocks(self) -> bool:
        """Whether its jobs are series, whose results are blocks."""
        return self.result == BLOCKS

    @property
    def output(self) -> str:
        """What its rule makes: a result, or the receipt of a panel with ``{panel}``."""
        return f"{RESULTS}/panel/{{panel}}.{self.rule}.done" if self.panel else self.result

    @property
    def moves(self) -> bool:
        """Whether a rule of its own moves a panel's result to its place, where a rendering rule expects it.

        A rule whose inputs are receipts in one run and results in the next would be stale to Snakemake.
        """
        return self.panel and self.result.endswith("}.json")

    def path(self, digest: str) -> Path:
        """Path of the result named `digest`."""
        return Path(self.result.format(digest=digest))

    def made(self, digest: str) -> Path:
        """Path at which a job makes that result."""
        return Path(PART.format(digest=digest)) if self.moves else self.path(digest)


def _artefact(kind: str) -> str:
    return f"{RESULTS}/{kind}/{{digest}}/manifest.json"


def _file(kind: str) -> str:
    return f"{RESULTS}/{kind}/{{digest}}.json"


RECORD = _file("record")
SPEC = _file("spec")
CONFIG = _file("config")
CODE = _file("code")
DAMAGE = _file("damage")
BLOCKS = f"{RESULTS}/block/{{digest}}"
PART = _file("part")
PANEL = f"{RESULTS}/panel/{{panel}}.json"
WRITTEN = f"{RESULTS}/written/{{digest}}.jsonl"

# A row reads results of rows above it, so that jobs can run in the order of the rows.
# fmt: off
STAGES = (
    MODEL := Stage("prepare_model", "lm.prepare_model", PrepareModelSpec, _artefact("model"), "cpu",
        "Preparing checkpoint {wildcards.digest}"),
    TEXT := Stage("prepare_text", "lm.prepare_text", PrepareTextSpec, _artefact("text"), "cpu",
        "Preparing text {wildcards.digest}"),

    SALIENCY := Stage("saliency", "sdtp.saliency", SaliencySpec, _artefact("saliency"), "model",
        "Extracting saliency {wildcards.digest}", (MODEL, TEXT)),
    TRAIN_PRUNER := Stage("train_pruner", "sdtp.train", PrunerSpec, _artefact("pruner"), "model",
        "Training {params.what}", (MODEL, SALIENCY), panel=True, passes_on="all"),
    CALIBRATE := Stage("calibrate", "sdtp.calibrate", CalibrationSpec, _artefact("calibration"), "model",
        "Calibrating selection rule {wildcards.digest}", (MODEL, TEXT, TRAIN_PRUNER)),
    EVALUATE_SDTP := Stage("evaluate_sdtp", "sdtp.evaluate", Series, BLOCKS, "timer",
        "Evaluating {params.what} (SDTP)", (MODEL, TEXT, SALIENCY, TRAIN_PRUNER, CALIBRATE),
        panel=True, passes_on="errors"),
    EVALUATE_PIPELINE := Stage("evaluate_pipeline", "sdtp.evaluate_pipeline", Series, BLOCKS, "ranks",
        "Evaluating {params.what} (SDTP over several ranks)", (MODEL, TEXT, TRAIN_PRUNER),
        panel=True, passes_on="errors"),
    SWEEP := Stage("sweep", "sdtp.sweep", SweepSpec, _file("sweep"), "timer",
        "Timing prefill at {params.what}", (MODEL, TEXT, TRAIN_PRUNER), panel=True),

    FIT_NGRAM := Stage("fit_ngram", "dynatree.fit_ngram", NgramSpec, _artefact("ngram"), "cpu",
        "Counting n-grams {wildcards.digest}", (MODEL, TEXT)),
    DISTIL_TEACHER := Stage("distil_teacher", "dynatree.distil_teacher", TeacherSpec, _artefact("teacher"),
        "model", "Letting the target write text to distil a draft from {wildcards.digest}", (MODEL, TEXT)),
    DISTIL := Stage("distil", "dynatree.distil", DistilSpec, _artefact("draft"), "model",
        "Distilling draft {wildcards.digest}", (MODEL, DISTIL_TEACHER)),
    CALIBRATE_TARGET := Stage("calibrate_target", "dynatree.calibrate_target", TargetCostSpec,
        _artefact("target_costs"), "timer", "Measuring costs of the target's forwards {wildcards.digest}",
        (MODEL, TEXT)),
    CALIBRATE_DRAFTER := Stage("calibrate_drafter", "dynatree.calibrate_drafter", AcceptanceSpec,
        _artefact("acceptance"), "model", "Counting how often drafts turn out right: {params.what}",
        (MODEL, TEXT, FIT_NGRAM, DISTIL), panel=True, passes_on="errors"),
    CALIBRATE_COSTS := Stage("calibrate_costs", "dynatree.calibrate_costs", CostSpec, _artefact("costs"),
        "timer", "Measuring costs of drafting: {params.what}",
        (MODEL, TEXT, FIT_NGRAM, DISTIL, CALIBRATE_TARGET, CALIBRATE_DRAFTER), panel=True,
        passes_on="errors"),
    DECODE := Stage("decode", "dynatree.decode", DecodeSeries, BLOCKS, "timer",
        "Decoding {params.what} (DynaTree)",
        (MODEL, TEXT, FIT_NGRAM, DISTIL, CALIBRATE_DRAFTER, CALIBRATE_COSTS),
        panel=True, passes_on="errors"),
    REPLAY := Stage("replay", "dynatree.replay_arms", ReplaySeries, BLOCKS, "model",
        "Replaying {params.what} (DynaTree)",
        (MODEL, TEXT, FIT_NGRAM, DISTIL, CALIBRATE_DRAFTER, CALIBRATE_COSTS),
        panel=True, passes_on="errors"),
    GRID := Stage("grid", "dynatree.grid", GridSpec, _file("grid"), "model",
        "Replaying grids of drafts: {params.what}",
        (MODEL, TEXT, FIT_NGRAM, DISTIL, CALIBRATE_DRAFTER, CALIBRATE_COSTS),
        panel=True),
    BENCHMARK := Stage("benchmark", "dynatree.benchmark", BenchmarkSpec, _file("benchmark"), "timer",
        "Decoding in every way, side by side",
        (MODEL, TEXT, FIT_NGRAM, DISTIL, CALIBRATE_DRAFTER, CALIBRATE_COSTS)),

    JOIN := Stage("join_record", "evidence.join", EvaluateSpec | DecodeSpec, RECORD, "cpu",
        "Joining the blocks of {params.label}",
        (EVALUATE_SDTP, EVALUATE_PIPELINE, DECODE, REPLAY, CALIBRATE_COSTS)),
)

TABLES = [
    f"paper/tables/{name}.tex"
    for name in (
        "decisions", "sdtp_effects", "sdtp_matrix", "sdtp_matrix_column", "decoding_column",
        "decoding_backward_column",
        "sdtp_further", "sdtp_quality", "sdtp_cost", "sdtp_ranking", "sdtp_pipeline", "sweep",
        "decoding", "decoding_backward", "decoding_adaptation", "decoding_drafter", "decoding_neural",
        "decoding_further", "decoding_kinds", "decoding_clocks", "decoding_rounds", "grid", "published",
    )
]
FIGURES = [
    f"paper/figures/{name}.{kind}"
    for name in (
        "keep_ratio", "bound", "sweep", "losses", "living", "saliency", "traffic", "rounds", "forward",
        "depth", "backward", "grid", "grid_trees", "grid_lengths",
    )
    for kind in ("pdf", "png")
]
# fmt: on

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
MACROS = "paper/numbers.tex"
PROVENANCE = "paper/provenance.json"
PAGE = "paper/results.html"
ARCHIVE = f"{RESULTS}/archive.tar.gz"
PAPER_SOURCES = ("paper/main.tex", "paper/references.bib")
SECTION = "paper/ablation.tex"
PDF = "paper/ablation.pdf"
