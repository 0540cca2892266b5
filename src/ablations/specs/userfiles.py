"""Files of the user: which ones a job reads, where they lie, and hashes of their contents."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ablations.core.errors import UserError
from ablations.core.files import canonical_json, sha256_file, sha256_text
from ablations.core.meaning import SOURCE
from ablations.specs.lm import DatasetText, LocalText, ModelSource, PretrainedModel, TextSource

PATH_FIELDS: Mapping[type, Mapping[str, str]] = {
    PretrainedModel: {"files": "name"},
    LocalText: {"files": "path"},
    DatasetText: {"folder": "name", "files": "data_files"},
}
"""Fields of each kind of source that may name a file or folder, by the name of the job's input."""


def root() -> Path:
    """Folder of `constraints.txt`, `workflow/` and `paper/templates`: the checkout.

    The working directory where the package is installed without its checkout.
    """
    checkout = SOURCE.parent
    return checkout if (checkout / "constraints.txt").is_file() else Path()


def shipped(path: Path) -> Path:
    """The file or folder in the checkout, if only that exists; else the one in the working directory."""
    in_checkout = root() / path
    try:
        use_checkout = ".." not in path.parts and in_checkout.exists() and not path.exists()
        return in_checkout if use_checkout else path
    except OSError:
        return path


def source_hashes(
    source: ModelSource | TextSource, key: str, sha256: Callable[[Path], str]
) -> dict[str, str]:
    """Hashes of the files that a source names, by the name of the job's input.

    Args:
        source: A model or a text. Its `name` is a name on a hub unless that file or folder exists.
        key: Configuration key of the source, for errors.
        sha256: Gives the hash of a file.

    Raises:
        UserError: a file is missing, or a folder is empty.
    """
    hashes = {}
    for name, attribute in PATH_FIELDS.get(type(source), {}).items():
        value = getattr(source, attribute)
        if value is not None and (attribute != "name" or user_path(value).exists()):
            hashes[name] = content_hash(user_path(value), f"{key}.{attribute}", sha256)
    return hashes


def require_source_unchanged(source: ModelSource | TextSource, planned: Mapping[str, str]) -> None:
    """Check that the files of a source are what they were when the job was planned.

    Raises:
        UserError: a file was edited or deleted.
    """
    for name, attribute in PATH_FIELDS.get(type(source), {}).items():
        if name in planned:
            require_unchanged(user_path(getattr(source, attribute)), planned[name])


def user_path(text: str) -> Path:
    """A path as a user writes it: `~` is the home folder, and a relative path may lie in the checkout.

    Raises:
        UserError: the path begins with `~`, and no home folder is known.
    """
    try:
        return shipped(Path(text).expanduser())
    except RuntimeError:
        raise UserError(f"{text!r}: no home folder is known for '~'; write the path out") from None


def visible_files(folder: Path) -> dict[str, Path]:
    """Files below a folder by their path in it; hidden ones (.git, .DS_Store) are left out.

    Links are followed.

    Raises:
        UserError: a link leads nowhere or in a circle, a folder cannot be listed, or an entry is neither a
            file nor a folder.
    """
    names = sorted(path.relative_to(folder) for path in _visible(folder, ()))
    return {name.as_posix(): folder / name for name in names}


def content_hash(path: Path, key: str, sha256: Callable[[Path], str] = sha256_file) -> str:
    """SHA-256 over the bytes of a file, or over the names and bytes of all visible files in a folder.

    Args:
        path: File or folder.
        key: Configuration key that names it, for errors.
        sha256: Gives the hash of a file.

    Raises:
        UserError: the path does not exist, or the folder holds no visible file.
    """
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise UserError(f"{key}: {str(path)!r}: {error.strerror}; correct the path") from None
    if is_file:
        # Without its name: a renamed file keeps its hash.
        return sha256_text(canonical_json([sha256(path)]))
    if not is_folder:
        raise UserError(f"{key}: {str(path)!r} does not exist")
    files = visible_files(path)
    if not files:
        raise UserError(f"{key}: folder {str(path)!r} holds no files")
    return sha256_text(canonical_json({name: sha256(file) for name, file in files.items()}))


def require_unchanged(path: Path, planned: str) -> None:
    """Check that a file or folder has the content hash with which the job was planned.

    Raises:
        UserError: the path was edited or deleted.
    """
    if content_hash(path, "planned with") != planned:
        raise UserError(
            f"{path}: edited after this job was planned; run snakemake again, which plans it anew"
        )


def _visible(folder: Path, parents: tuple[Path, ...]) -> Iterator[Path]:
    """Visible files below a folder; `parents` are the folders on the way to it, links resolved."""
    resolved = folder.resolve()
    if resolved in parents:
        raise UserError(f"{folder}: a link to a folder that it lies in; remove it")
    try:
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                yield from _visible(path, (*parents, resolved))
            elif path.is_file():
                yield path
            elif path.is_symlink():
                raise UserError(f"{path}: a link to nothing; mend or remove it")
            else:
                raise UserError(f"{path}: neither a file nor a folder; take it out of its folder")
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}; make it readable") from None
