"""What a module of Python means, as a digest.

Two versions of a module have the same digest when they differ only in comments, docstrings, formatting or
the order of imports. The digest is taken over a dump of the syntax tree without positions and empty fields;
that dump, unlike `ast.dump`, is the same on every supported version of Python.
"""

import ast
from pathlib import Path

from ablations.core.files import sha256_text

SOURCE = Path(__file__).parents[2]
"""Folder that holds the package."""


def module_source(name: str) -> str:
    """Current text of a module of this package.

    Raises:
        FileNotFoundError: there is no such module.
    """
    path = SOURCE.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")


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
    if isinstance(node, ast.JoinedStr):
        # Early releases of Python 3.12 put empty strings around a field nested in a format, f"{x:{width}}".
        node.values = [value for value in node.values if not _is_empty_string(value)]
    fields = (
        f"{name}={_walk(value)}"
        for name, value in ast.iter_fields(node)
        # `kind` distinguishes u"" from ""; `type_comment` is a comment.
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


def _is_empty_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == ""
