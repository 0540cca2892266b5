"""What the source never does: unpickle, run code of a hub, evaluate text, or give text to a shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))

# Modules that run what they read.
UNPICKLING = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pandas.read_pickle",
    "pd.read_pickle",
    "torch.hub.load",
}


def faults(source: str) -> Iterator[str]:
    """What a module does that it must not, as ``line: what``."""
    for node in ast.walk(ast.parse(source)):
        yield from (f"{node.lineno}: {fault}" for fault in _faults(node))


def _faults(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (name.name for name in names if name.name.split(".")[0] in UNPICKLING)
        case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLING:
            yield module
        case ast.Dict(keys=keys, values=values):
            settings = [(key.value, value) for key, value in zip(keys, values, strict=True) if _is_text(key)]
            yield from _settings(settings)
        case ast.Call(func=function, keywords=keywords):
            name = ast.unparse(function)
            named = {keyword.arg: keyword.value for keyword in keywords if keyword.arg}
            if name in FORBIDDEN_CALLS:
                yield name
            if name == "torch.load" and not _is(named.get("weights_only"), True):
                yield "torch.load without weights_only=True"
            yield from _settings(named.items())


def _settings(settings) -> Iterator[str]:
    """Arguments that must not be switched on, given by name or in a dictionary."""
    for name, value in settings:
        if name in ("trust_remote_code", "allow_pickle", "shell") and not _is(value, False):
            yield f"{name} is not False"


def _is(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_module_runs_nothing_that_it_reads(path):
    assert [*faults(path.read_text(encoding="utf-8"))] == []


def test_the_rules_run_nothing_that_they_read():
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        text = path.read_text()
        for call in ("eval(", "exec(", "os.system(", "shell=True", "pickle"):
            assert call not in text, f"{path.name}: {call}"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=trusted)",
        "settings = {'trust_remote_code': True}",
        "subprocess.run(text, shell=True)",
        "yaml.load(text, Loader)",
        "eval(text)",
    ],
)
def test_each_fault_would_be_found(source):
    assert [*faults(source)]


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "model.eval()",
        "f(trust_remote_code=False)",
        "yaml.safe_load(text)",
    ],
)
def test_what_is_safe_is_no_fault(source):
    assert not [*faults(source)]
