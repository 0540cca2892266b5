"""The checkout that this code is part of, which need not be the working directory."""

from pathlib import Path

from ablations.study.meaning import SOURCE


def root() -> Path:
    """Folder of `constraints.txt`, `workflow/` and `paper/templates`.

    The working directory where the package was installed without its checkout.
    """
    own = SOURCE.parent
    return own if (own / "constraints.txt").is_file() else Path()


def shipped(path: Path) -> Path:
    """A file or folder of the working directory; what is not there may be part of the checkout."""
    own = root() / path
    try:
        return own if ".." not in path.parts and own.exists() and not path.exists() else path
    except OSError:
        return path
