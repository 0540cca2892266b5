"""The artefacts that both methods stand on, as jobs: checkpoints and corpora."""

from pathlib import Path
from platform import python_version

from ablations.study.config.study import StudyConfig
from ablations.study.contracts.lm import (
    DatasetText,
    LocalText,
    PrepareModelSpec,
    PrepareTextSpec,
    PretrainedModel,
    PythonText,
)
from ablations.study.planning.jobs import Job, Sources
from ablations.study.planning.stages import PREPARE_MODEL, PREPARE_TEXT
from ablations.study.planning.userfiles import content_hash


class Artefacts:
    """Jobs that prepare models and texts, built once per name."""

    def __init__(self, config: StudyConfig, sources: Sources) -> None:
        self._config = config
        self._sources = sources
        self._models: dict[str, Job] = {}
        self._texts: dict[str, Job] = {}

    def model(self, name: str) -> Job:
        """The checkpoint called `name` in the configuration."""
        if name not in self._models:
            self._models[name] = self._model(name)
        return self._models[name]

    def text(self, name: str) -> Job:
        """The corpus called `name` in the configuration."""
        if name not in self._texts:
            self._texts[name] = self._text(name)
        return self._texts[name]

    def _model(self, name: str) -> Job:
        source = self._config.models[name]
        files = {}
        if isinstance(source, PretrainedModel) and Path(source.name).exists():
            files["files"] = content_hash(Path(source.name), f"models.{name}.name")
        return Job(PREPARE_MODEL, PrepareModelSpec(model=source), self._sources, files=files)

    def _text(self, name: str) -> Job:
        source = self._config.texts[name]
        files = {}
        if isinstance(source, PythonText) and source.python is None:
            source = source.model_copy(update={"python": python_version()})
        if isinstance(source, LocalText):
            files["files"] = content_hash(Path(source.path), f"texts.{name}.path")
        if isinstance(source, DatasetText) and Path(source.name).exists():
            files["folder"] = content_hash(Path(source.name), f"texts.{name}.name")
        if isinstance(source, DatasetText) and source.data_files:
            files["files"] = content_hash(Path(source.data_files), f"texts.{name}.data_files")
        spec = PrepareTextSpec(text=source, seed=self._config.seed)
        return Job(PREPARE_TEXT, spec, self._sources, files=files)
