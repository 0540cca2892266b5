"""Command line: the text that a teacher generated, as a text file.

N-grams of the target's own text predict the target best. The file that ships with the repository was made by
this command; see docs/shipped-data.md.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file
from tqdm import tqdm

from ablations.core.artefact import open_artefact
from ablations.core.errors import one_line_errors, require_out
from ablations.core.files import write_text
from ablations.dynatree.distilling.states import TEACHER_FILE
from ablations.lm.checkpoint import load_tokenizer


def written_texts(model: Path, teacher: Path) -> list[str]:
    """Continuations and answers that the target generated, without its prompts.

    Args:
        model: Manifest of the target, for its tokenizer.
        teacher: Manifest written by `ablations.dynatree.distil_teacher` for this target.

    Raises:
        UserError: a file is missing or corrupt.
    """
    tokenizer = load_tokenizer(model)
    folder, _ = open_artefact(teacher)
    tensors = load_file(folder / TEACHER_FILE)
    rows = zip(*(tensors[name].long().tolist() for name in ("ids", "starts", "ends")), strict=True)
    return [
        tokenizer.decode(ids[start:end], skip_special_tokens=True)  # type: ignore[misc]
        for ids, start, end in tqdm(rows, desc="decode", total=len(tensors["ids"]), mininterval=2)
    ]


def main() -> None:
    """Run the command line."""
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
