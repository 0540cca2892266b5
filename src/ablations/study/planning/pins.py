"""The exact versions that a study is meant to be computed with, from the constraints file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ablations.study.errors import UserError


@dataclass(frozen=True)
class Pins:
    """Pinned versions by distribution."""

    versions: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Pins":
        """Read a pip constraints file in which every line is ``name==version``.

        Raises:
            UserError: the file is missing, or a line is not an exact pin.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; it pins the versions a study computes with") from None
        versions: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            text = line.split("#")[0].strip()
            if not text:
                continue
            try:
                requirement = Requirement(text)
                (specifier,) = requirement.specifier
                exact = specifier.operator == "=="
            except (InvalidRequirement, ValueError):
                exact = False
            if not exact:
                raise UserError(f"{path}:{number}: '{text}' is not an exact pin (name==version)")
            versions[canonicalize_name(requirement.name)] = specifier.version
        return cls(versions)

    def of(self, distributions: Iterable[str]) -> dict[str, str]:
        """Pins of `distributions`; one that is not pinned is an error.

        Raises:
            UserError: a distribution without a pin.
        """
        missing = [name for name in distributions if name not in self.versions]
        if missing:
            raise UserError(f"constraints.txt: no pin for '{missing[0]}', which a job computes with; add one")
        return {name: self.versions[name] for name in distributions}
