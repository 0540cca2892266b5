"""The artefacts that both methods stand on, as jobs: checkpoints and corpora."""

from platform import python_version

from ablations.study.config.study import StudyConfig
from ablations.study.contracts.lm import PrepareModelSpec, PrepareTextSpec, PythonText
from ablations.study.planning.jobs import Job, Sources
from ablations.study.planning.stages import MODEL, TEXT
from ablations.study.userfiles import source_hashes


class Artefacts:
    """Jobs that prepare models and texts, built once per name."""

    def __init__(self, config: StudyConfig, sources: Sources) -> None:
        self._config = config
        self._sources = sources
        self._models: dict[str, Job] = {}
        self._texts: dict[str, Job] = {}

    def model(self, name: str) -> Job:
        """The checkpoint called `name` in the configuration.

        Raises:
            UserError: a file that it names is not there.
        """
        if name not in self._models:
            self._models[name] = self._model(name)
        return self._models[name]

    def text(self, name: str) -> Job:
        """The corpus called `name` in the configuration.

        Raises:
            UserError: a file that it names is not there.
        """
        if name not in self._texts:
            self._texts[name] = self._text(name)
        return self._texts[name]

    def _model(self, name: str) -> Job:
        source = self._config.models[name]
        files = source_hashes(source, f"models.{name}", self._sources.hashes.sha256)
        return Job(MODEL, PrepareModelSpec(model=source), self._sources, files=files)

    def _text(self, name: str) -> Job:
        source = self._config.texts[name]
        if isinstance(source, PythonText) and source.python is None:
            source = source.model_copy(update={"python": python_version()})
        files = source_hashes(source, f"texts.{name}", self._sources.hashes.sha256)
        spec = PrepareTextSpec(text=source, seed=self._config.seed)
        return Job(TEXT, spec, self._sources, files=files)
