"""The users' own files: which ones a job reads, and hashes of their bytes."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ablations.study.checkout import shipped
from ablations.study.contracts.lm import DatasetText, LocalText, ModelSource, PretrainedModel, TextSource
from ablations.study.errors import UserError
from ablations.study.files import canonical_json, sha256_file, sha256_text

KEYS: Mapping[type, Mapping[str, str]] = {
    PretrainedModel: {"files": "name"},
    LocalText: {"files": "path"},
    DatasetText: {"folder": "name", "files": "data_files"},
}
"""Keys of sources that may name files or folders, by what a job's inputs call them."""


def source_hashes(
    source: ModelSource | TextSource, key: str, sha256: Callable[[Path], str]
) -> dict[str, str]:
    """Hashes of the files that a source names, by what a job's inputs call them.

    Args:
        source: A model or a text; what is not there under its `name` is a name on a hub.
        key: Configuration key of the source, for errors.
        sha256: Gives the hash of a file.

    Raises:
        UserError: a file is not there, or a folder is empty.
    """
    found = {}
    for name, attribute in KEYS.get(type(source), {}).items():
        value = getattr(source, attribute)
        if value is not None and (attribute != "name" or user_path(value).exists()):
            found[name] = content_hash(user_path(value), f"{key}.{attribute}", sha256)
    return found


def require_source_unchanged(source: ModelSource | TextSource, planned: Mapping[str, str]) -> None:
    """Check that a source's files are what they were when the job was planned.

    Raises:
        UserError: one was edited, or is gone.
    """
    for name, attribute in KEYS.get(type(source), {}).items():
        if name in planned:
            require_unchanged(user_path(getattr(source, attribute)), planned[name])


def user_path(text: str) -> Path:
    """A path as a user writes it: `~` is the home folder; what is not in the working directory, as `texts/`
    where a study runs elsewhere, may be in the checkout.

    Raises:
        UserError: there is no such home folder.
    """
    try:
        return shipped(Path(text).expanduser())
    except RuntimeError:
        raise UserError(f"{text!r}: no home folder is known for '~'; write the path out") from None


def visible_files(folder: Path) -> dict[str, Path]:
    """Files below a folder by their names in it; hidden ones (.git, .DS_Store) are other programs'.

    Links are followed: what lies behind one is read as if it lay in the folder.

    Raises:
        UserError: a link leads nowhere or around in a circle, a folder cannot be listed, or something is
            neither a file nor a folder.
    """
    names = sorted(path.relative_to(folder) for path in _visible(folder, ()))
    return {name.as_posix(): folder / name for name in names}


def _visible(folder: Path, around: tuple[Path, ...]) -> Iterator[Path]:
    """Visible files below a folder that lies in the folders `around`, links resolved."""
    real = folder.resolve()
    if real in around:
        raise UserError(f"{folder}: a link to a folder that it lies in; remove it")
    try:
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                yield from _visible(path, (*around, real))
            elif path.is_file():
                yield path
            elif path.is_symlink():
                raise UserError(f"{path}: a link to nothing; mend or remove it")
            else:
                raise UserError(f"{path}: neither a file nor a folder; take it out of its folder")
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}; make it readable") from None


def content_hash(path: Path, key: str, sha256: Callable[[Path], str] = sha256_file) -> str:
    """SHA-256 over the bytes of a file, or over the names and bytes of all visible files in a folder.

    Args:
        path: File or folder.
        key: Configuration key that names it, for errors.
        sha256: Gives the hash of a file.

    Raises:
        UserError: nothing is there, or the folder is empty.
    """
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise UserError(f"{key}: {str(path)!r}: {error.strerror}; correct the path") from None
    if is_file:
        # One file is named by its bytes alone: renaming it changes nothing.
        return sha256_text(canonical_json([sha256(path)]))
    if not is_folder:
        raise UserError(f"{key}: {str(path)!r} does not exist")
    files = visible_files(path)
    if not files:
        raise UserError(f"{key}: folder {str(path)!r} holds no files")
    return sha256_text(canonical_json({name: sha256(file) for name, file in files.items()}))


def require_unchanged(path: Path, planned: str) -> None:
    """Check that a file or folder is what it was when the job was planned; the job's digest says so.

    Raises:
        UserError: it was edited, or is gone.
    """
    if content_hash(path, "planned with") != planned:
        raise UserError(
            f"{path}: edited after this job was planned; run snakemake again, which plans it anew"
        )
