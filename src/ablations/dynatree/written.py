"""What a teacher wrote, as a text file: no text guesses a target better than its own.

The file that ships with the repository was made with this; see docs/shipped-data.md.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file
from tqdm import tqdm

from ablations.dynatree.distil_teacher import TEACHER_FILE
from ablations.lm.checkpoint import load_tokenizer
from ablations.study.artefact import open_artefact
from ablations.study.cli import one_line_errors, require_out
from ablations.study.files import write_text


def written_texts(model: Path, teacher: Path) -> list[str]:
    """Continuations and answers that the target wrote, without what it was given.

    Args:
        model: Manifest of the target; its tokenizer is used.
        teacher: Manifest that `ablations.dynatree.distil_teacher` made with it.

    Raises:
        UserError: a file is missing or corrupt.
    """
    tokenizer = load_tokenizer(model)
    folder, _ = open_artefact(teacher)
    made = load_file(folder / TEACHER_FILE)
    rows = zip(*(made[name].long().tolist() for name in ("ids", "starts", "ends")), strict=True)
    return [
        tokenizer.decode(ids[start:end], skip_special_tokens=True)  # type: ignore[misc]
        for ids, start, end in tqdm(rows, desc="decode", total=len(made["ids"]), mininterval=2)
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.dynatree.written",
        description="Write down what a target wrote for a draft, one JSON line each.",
        epilog="example: python -m ablations.dynatree.written --model results/model/DIGEST/manifest.json"
        " --teacher results/teacher/DIGEST/manifest.json --out texts/written.jsonl",
    )
    parser.add_argument("--model", type=Path, required=True, help="manifest of the target")
    parser.add_argument("--teacher", type=Path, required=True, help="manifest of what it wrote")
    parser.add_argument("--out", type=Path, required=True, help="text file to write")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        texts = written_texts(arguments.model, arguments.teacher)
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts if text.strip()]
        write_text(arguments.out, "".join(lines))


if __name__ == "__main__":
    main()
