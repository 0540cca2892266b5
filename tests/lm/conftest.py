"""Jobs run in this process, and wheels built on the spot."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ablations.core.contract import Contract
from ablations.core.job import JobFile, Run
from ablations.lm.prepare_model import prepare_model
from ablations.lm.prepare_text import prepare_text
from ablations.specs.lm import PrepareModelSpec, PrepareTextSpec
from tests.torch_state import torch_as_before  # noqa: F401


def run_of(spec: Contract, out: Path) -> Run:
    job = JobFile[type(spec)](digest="d", module="m", spec=spec, spec_digest="s", code_digest="c")
    return Run(job, out, None)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Prepare a model source in this process; returns its manifest."""

    def make(name: str = "model", /, **source: object) -> Path:
        source = (
            source
            if "source" in source
            else {"source": "random", "architecture": "llama", "layers": 2} | source
        )
        out = tmp_path / name / "manifest.json"
        prepare_model(run_of(PrepareModelSpec.model_validate({"model": source}), out))
        return out

    return make


@pytest.fixture
def make_text(tmp_path: Path) -> Callable[..., Path]:
    """Prepare a text source in this process; returns its manifest."""

    def make(name: str = "corpus", /, *, seed: int = 0, **source: object) -> Path:
        out = tmp_path / name / "manifest.json"
        prepare_text(run_of(PrepareTextSpec.model_validate({"text": source, "seed": seed}), out))
        return out

    return make


@pytest.fixture
def make_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], None]:
    """Build the wheel ``carrier-1.0`` with the given files, the only wheel that pip can find."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def make(files: dict[str, bytes]) -> None:
        information = {
            "METADATA": b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\nRequires-Dist: nowhere\n",
            "WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": b"",
        }
        with zipfile.ZipFile(folder / "carrier-1.0-py3-none-any.whl", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
            for name, content in information.items():
                archive.writestr(f"carrier-1.0.dist-info/{name}", content)

    return make
