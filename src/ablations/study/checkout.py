"""The checkout that this code is part of, which need not be the working directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""Its root; where the package was installed without its checkout, a folder that holds nothing of it."""


def root() -> Path:
    """Folder of `constraints.txt`, `workflow/` and `paper/templates`."""
    return ROOT if (ROOT / "constraints.txt").is_file() else Path()


def shipped(path: Path) -> Path:
    """A file or folder of the working directory; one that is not there may be part of the checkout."""
    own = root() / path
    return own if own.exists() and not path.exists() else path
