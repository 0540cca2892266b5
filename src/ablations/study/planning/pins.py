"""The exact versions that a study is meant to be computed with, from the constraints file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ablations.study.errors import UserError
from ablations.study.job import public_version


@dataclass(frozen=True)
class Pins:
    """Pinned versions by distribution, as they are written."""

    versions: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Pins":
        """Read a pip constraints file in which every line is ``name==version``.

        Raises:
            UserError: the file is missing or not UTF-8, a line is not an exact pin, or two lines pin one
                distribution to different versions.
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
                # Not `==2.*`, which is no version.
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
        """Pins of `distributions`, spelt as they enter digests; one that is not pinned is an error.

        Raises:
            UserError: a distribution without a pin.
        """
        missing = [name for name in distributions if name not in self.versions]
        if missing:
            raise UserError(f"constraints.txt: no pin for '{missing[0]}', which a job computes with; add one")
        return {name: public_version(self.versions[name]) for name in distributions}
