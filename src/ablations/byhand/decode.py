"""Command line: one decoding configuration on the user's prompts, against its reference."""

import argparse
import math
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from ablations.byhand.inputs import (
    BY_HAND,
    checkpoint_manifest,
    drafter_input,
    prompts_manifest,
    read_prompt_file,
)
from ablations.core.artefact import Manifest
from ablations.core.errors import UserError, first_problem, one_line_errors, require_out
from ablations.core.files import canonical_json, sha256_text
from ablations.core.job import JobFile, Run, public_version
from ablations.core.panel import Member, Panel
from ablations.core.record import digests_of, read_contract, write_record
from ablations.dynatree.decode import decode
from ablations.evidence.join import DecodeRecord, decoding_record
from ablations.evidence.statistics import log_speedup, median_seconds, tokens_per_forward
from ablations.specs.dynatree.decode import DecodeSeries, DecodeSpec
from ablations.specs.dynatree.prompts import PromptKind
from ablations.study.planning.digests import CodeIndex
from ablations.study.planning.jobs import DIGEST_LENGTH

MODULE = "ablations.dynatree.decode"

BY_HAND_RESULTS = Path("results/by-hand")

PROMPT = "Write a Python function that returns the n-th Fibonacci number, and explain how it works.\n"
"""Prompt that is decoded if none is given."""

OPTIONS = {
    "shape.depth": "--depth",
    "shape.branching": "--branch",
    "pruning.tau": "--tau",
    "pruning.max_nodes": "--max-nodes",
    "new_tokens": "--tokens",
    "repeats": "--runs",
    "compute.dtype": "--dtype",
    "compute.threads": "--threads",
}
"""Options by the spec's key that they set."""

AnySpec = TypeVar("AnySpec", DecodeSeries, DecodeSpec)


class Alone(Member[DecodeSeries]):
    """The only job of a process: its error is the command's."""

    def fail(self, reason: str) -> None:
        """Raise the error again."""
        raise UserError(reason)


def spec_of(arguments: argparse.Namespace, drafter: object, count: int) -> DecodeSpec:
    """The spec that the options describe.

    Args:
        arguments: The command line.
        drafter: Spec of the drafter; None decodes autoregressively, with `generate` as the reference.
        count: Number of prompts.

    Raises:
        UserError: a value is outside its limits, or sampling is asked for, which is not supported.
    """
    if arguments.temperature != 0:
        raise UserError(
            f"--temperature {arguments.temperature:g}: sampling is not supported, decoding is greedy;"
            " leave it at 0"
        )
    prompt_set = {"kind": BY_HAND, "text": "prompts", "split": "heldout", "count": count, "tokens": None}
    raw = {
        "drafter": drafter,
        "shape": {"method": "tree", "depth": arguments.depth, "branching": arguments.branch},
        "pruning": {"tau": arguments.tau, "max_nodes": arguments.max_nodes},
        "reference": "generate" if drafter is None else "autoregressive",
        "prompts": [prompt_set | {"chat": arguments.chat}],
        "new_tokens": arguments.tokens,
        "repeats": arguments.runs,
        "compute": {"dtype": arguments.dtype, "threads": arguments.threads},
    }
    try:
        return DecodeSpec.model_validate(raw if drafter else raw | {"shape": None, "pruning": None})
    except ValidationError as error:
        key, problem = first_problem(error)
        raise UserError(f"{OPTIONS.get(key, key)}: {problem}") from None


def series_of(spec: DecodeSpec) -> DecodeSeries:
    """What is measured for a record of one kind of prompts."""
    (prompt_set,) = spec.prompts
    shared = {name: getattr(spec, name) for name in DecodeSeries.model_fields if name != "prompts"}
    return DecodeSeries(**shared, prompts=PromptKind(**prompt_set.fields_of(PromptKind)))


def job_of(spec: AnySpec, inputs: dict[str, Path]) -> JobFile[AnySpec]:
    """The job of a spec, named by its digest as the jobs of a study are."""
    index = CodeIndex()
    determinants = {
        "module": MODULE,
        "spec_digest": sha256_text(canonical_json(spec.model_dump(mode="json")))[:DIGEST_LENGTH],
        "code_digest": index.digest(MODULE)[:DIGEST_LENGTH],
        "input_digests": {name: read_contract(path, Manifest).digests.job for name, path in inputs.items()},
        "pins": {name: public_version(version(name)) for name in index.computes_with(MODULE)},
    }
    return JobFile(
        digest=sha256_text(canonical_json(determinants))[:DIGEST_LENGTH],
        spec=spec,
        inputs={name: str(path) for name, path in inputs.items()},
        **determinants,
    )


def table(record: DecodeRecord) -> str:
    """Table for the terminal, with one line per prompt and one for the geometric mean."""
    reference, arm = (
        ("generate", "AR") if record.spec.reference == "generate" else ("AR", record.spec.drafter.kind)
    )
    header = ["prompt", "tokens", f"{reference} tok/s", f"{arm} tok/s", "speed-up", "acceptance", "output"]
    rows = [header]
    speedups = [log_speedup(sample.pairs) for sample in record.samples]
    for sample, speedup in zip(record.samples, speedups, strict=True):
        rates = (
            sample.new_tokens / median_seconds(getattr(pair, side) for pair in sample.pairs)
            for side in ("reference", "arm")
        )
        rounds = sample.target_forwards
        rows.append(
            [
                sample.document,
                str(sample.new_tokens),
                *(f"{rate:.1f}" for rate in rates),
                f"{math.exp(speedup):.2f}",
                f"{tokens_per_forward(sample.accepted, rounds):.2f}" if rounds else "-",
                "identical" if sample.matched else f"{sample.ties} tie(s)",
            ]
        )
    rows.append(["geometric mean", "", "", "", f"{math.exp(float(np.mean(speedups))):.2f}", "", ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    result = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description="Decode prompts with one configuration, interleaved with autoregressive decoding, print"
        " a table, and write a record. With --panel instead: measure experiments of a study.",
        epilog=f"example: python -m {MODULE} --target results/model/DIGEST --draft lookup --depth 7"
        " --branch 2 --tau 0.05 --tokens 100 --runs 5 --prompts prompts.txt",
    )
    add = result.add_argument
    add("--target", type=Path, required=True, help="folder of save_pretrained, or a prepared checkpoint")
    add(
        "--draft",
        default="lookup",
        help="folder of a causal LM with the target's vocabulary, the manifest of a draft, n-grams or"
        " checkpoint that a study made, 'lookup' (prompt lookup, default), or 'none' (autoregressive decoding"
        " beside generate)",
    )
    add("--depth", type=int, default=7, help="levels of the tree (default 7)")
    add("--branch", type=int, default=2, help="children per node (default 2); 1 drafts a single path")
    add(
        "--tau",
        type=threshold,
        default=0.05,
        help="least path probability (default 0.05); 'none' prunes nothing",
    )
    add("--max-nodes", type=int, default=256, help="most nodes of a tree (default 256)")
    add("--context-weight", type=float, default=64.0, help="of n-grams: weight of the live text (default 64)")
    add("--tokens", type=int, default=500, help="most new tokens per prompt (default 500)")
    add(
        "--runs",
        type=int,
        default=5,
        help="timed rounds per prompt, after an untimed one (default 5); one more if they differ",
    )
    prompt_group = result.add_mutually_exclusive_group()
    prompt_group.add_argument(
        "--prompt", default=PROMPT, help="the prompt (default: a question about Fibonacci)"
    )
    prompt_group.add_argument(
        "--prompts", type=Path, help="file of prompts, one a line, or .jsonl with key 'prompt'"
    )
    add("--chat", action="store_true", help="put each prompt into the target's chat template")
    add("--dtype", default="float32", help="float32 (default), bfloat16 or float16")
    add("--threads", type=int, default=1, help="CPU threads (default 1)")
    add("--temperature", type=float, default=0.0, help="only 0, greedy decoding, is supported")
    add("--out", type=Path, help="record to write (default results/by-hand/decode-DIGEST.json)")
    return result


def threshold(text: str) -> float | None:
    """Value of ``--tau``; None for ``none``."""
    return None if text == "none" else float(text)


def main() -> None:
    """Run the command line."""
    arguments = parser().parse_args()
    with (
        one_line_errors(arguments.out or BY_HAND_RESULTS),
        tempfile.TemporaryDirectory(prefix="ablations-decode-") as temporary,
    ):
        require_out(arguments.out or BY_HAND_RESULTS / "decode.json")
        folder = Path(temporary)
        texts = read_prompt_file(arguments.prompts) if arguments.prompts else [arguments.prompt]
        drafter, inputs = drafter_input(arguments.draft, arguments.context_weight, folder / "draft")
        spec = spec_of(arguments, drafter, len(texts))
        inputs |= {
            "model": checkpoint_manifest(arguments.target, "--target", folder / "target"),
            "prompts": prompts_manifest(texts, folder / "prompts"),
        }
        job = job_of(spec, inputs)
        out = arguments.out or BY_HAND_RESULTS / f"decode-{job.digest}.json"
        series = Run(job_of(series_of(spec), inputs), folder / "blocks", None)
        decode(Panel([Alone(series, [(0, len(texts))])]))
        known = job.input_digests | {BY_HAND: series.job.digest}
        digests = digests_of(Run(job, out, None)).model_copy(update={"inputs": known})
        record, rows = decoding_record(spec, None, digests, {BY_HAND: series.out})
        write_record(out, record, rows)
        print(table(record))
        print(f"record: {out}")


if __name__ == "__main__":
    main()
