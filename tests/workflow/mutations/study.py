"""A copy of the finished tiny study, and the ways in which mutations edit it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.workflow.mutations.dryrun import EVERYTHING, PAPER, TINY, planned
from tests.workflow.mutations.jobs import BEYOND_THE_PAPER

# What no rule reads.
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "tests", "docs", "__pycache__", "log")


@dataclass(frozen=True)
class Study:
    """One copy, free to edit."""

    path: Path
    targets: tuple[str, ...] = EVERYTHING
    flags: tuple[str, ...] = ()

    def planned(self) -> frozenset[str]:
        """Blocks and results that Snakemake would make now."""
        return planned(self.path, self.targets, self.flags)

    def replace(self, file: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        path = self.path / file
        text = path.read_text()
        assert old in text, f"{file} does not contain {old!r}"
        path.write_text(text.replace(old, new, 1))

    def append(self, file: str, text: str) -> None:
        """Add text at the end of a file."""
        path = self.path / file
        path.write_text(path.read_text() + text)

    def settings(self, edit: Callable[[dict[str, Any]], None], file: str = TINY) -> None:
        """Edit a configuration as the nested maps that it holds."""
        path = self.path / file
        config = yaml.safe_load(path.read_text())
        edit(config)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def set(self, key: str, value: Any) -> None:
        """Give a key of the configuration, with dots, a value in the overlay, which wins.

        An ablation is edited where it stands: one that an overlay names comes before all others.
        """
        method, group, name, *_ = [*key.split("."), "", ""]
        overlay = yaml.safe_load((self.path / TINY).read_text())
        here = group != "ablations" or name in overlay[method]["ablations"]

        def edit(config: dict[str, Any]) -> None:
            *parents, last = key.split(".")
            for parent in parents:
                config = config.setdefault(parent, {})
            assert config.get(last) != value, f"{key} is {value!r} already"
            config[last] = value

        self.settings(edit, TINY if here else "config.yaml")


@dataclass(frozen=True)
class Mutation:
    """One edit and what should be made after it.

    Attributes:
        name: What is edited.
        edit: Does it.
        expected: Blocks and results that must be made, no more.
        allowed: Those that may be made besides, because Snakemake has nothing left to know better by.
    """

    name: str
    edit: Callable[[Study], object]
    expected: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """What came of one mutation."""

    mutation: Mutation
    actual: frozenset[str]
    targets: tuple[str, ...]

    @property
    def expected(self) -> frozenset[str]:
        """Blocks and results that must be made for these targets."""
        left_out = BEYOND_THE_PAPER if self.targets == PAPER else frozenset()
        return self.mutation.expected - left_out

    @property
    def missed(self) -> frozenset[str]:
        """Those that should be made and would not."""
        return self.expected - self.actual

    @property
    def needless(self) -> frozenset[str]:
        """Those that would be made and should not."""
        return self.actual - self.expected - self.mutation.allowed


def try_mutation(
    finished: Path, mutation: Mutation, folder: Path, targets: tuple[str, ...], flags: tuple[str, ...] = ()
) -> Verdict:
    """Apply one mutation to a copy of a finished study in `folder`, which is deleted again."""
    shutil.copytree(finished, folder, symlinks=True, ignore=_LEFT_OUT)
    try:
        study = Study(folder, targets, flags)
        mutation.edit(study)
        return Verdict(mutation, study.planned(), targets)
    finally:
        shutil.rmtree(folder)
