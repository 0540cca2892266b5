"""Rule `ablation_pdf`: the paper's document through latexmk."""

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ablations.core.errors import UserError, one_line_errors, require_out
from ablations.core.files import atomic_path


def compile_pdf(document: Path, out: Path, section: Path | None = None) -> None:
    """Compile a LaTeX document and put its PDF at `out`; auxiliary files go elsewhere.

    Args:
        document: The document; its bibliography lies beside it.
        out: PDF to write.
        section: The section that it inputs, numbers, tables and figures beside it; beside the document where
            left out.

    Raises:
        UserError: TeX is not installed, or the document does not compile.
    """
    latexmk = shutil.which("latexmk")
    if latexmk is None:
        raise UserError(
            f"{out}: needs latexmk, which is not installed (Debian: apt-get install latexmk"
            " texlive-latex-extra); paper/ablation.tex is complete without it"
        )
    document = document.resolve()
    # An empty name at the end stands for where TeX looks anyway.
    searched = {
        name: f".:{document.parent}:{os.environ.get(name, '')}" for name in ("TEXINPUTS", "BIBINPUTS")
    }
    with tempfile.TemporaryDirectory() as folder:
        options = ["-cd-", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error"]
        done = subprocess.run(
            [latexmk, *options, f"-outdir={folder}", str(document)],
            cwd=(section or document).parent,
            # TeX breaks lines of more characters, within a file's name too.
            env={**os.environ, **searched, "max_print_line": "1000"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        print(done.stdout, done.stderr, sep="\n")
        if done.returncode:
            raise UserError(f"{document}: {_first_error(done.stdout)}")
        with atomic_path(out) as temporary:
            shutil.copyfile(Path(folder) / f"{document.stem}.pdf", temporary)


def _first_error(log: str) -> str:
    """First error of a LaTeX run: `file:line: what` with -file-line-error, or `! what`."""
    lines = [line.strip() for line in log.splitlines()]
    found = next((line for line in lines if line.startswith("!") or ".tex:" in line), None)
    return f"LaTeX stopped at {found}" if found else "latexmk failed; its output is above"


def main() -> None:
    """Command line of the rule `ablation_pdf`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.pdf",
        description="Compile the paper with latexmk.",
        epilog="example: python -m ablations.paper.pdf --main paper/main.tex --out paper/ablation.pdf",
    )
    parser.add_argument("--main", type=Path, required=True, help="document to compile")
    parser.add_argument(
        "--section", type=Path, help="section that it inputs, where it does not lie beside it"
    )
    parser.add_argument("--out", type=Path, required=True, help="PDF to write")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        compile_pdf(arguments.main, arguments.out, arguments.section)


if __name__ == "__main__":
    main()
