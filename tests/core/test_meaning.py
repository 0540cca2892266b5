"""What a module means is told by its logic alone, and is the same on every Python."""

import ast

import pytest

from ablations.core.meaning import meaning

EVERY_SYNTAX = """
import b, a as c
from .. import d as e
from __future__ import annotations
@decorated(1, *two, three=3, **four)
class A(B, metaclass=C):
    "A docstring."
    field: int = -1_000
    other: "str"
def f(a, /, b: int = 0x10, *c, d: float = 1e400, **e) -> None:
    return (yield)
async def g():
    async with a as b, c:
        await d
    async for x in y:
        pass
    return [x async for x in y if not x is None]
try:
    del a[1:2, ...], b[*c]
except* (E, F) as error:
    raise G from error
else:
    assert x, f"{x:{w}}"
finally:
    global z
match x:
    case {"a": 1, **rest} | [2, *_] | H(i=-1) if (j := 0):
        pass
with (k as l, m as n):
    o, *p = {**q, "r": 1j}, {s for t in u for s in t}, {v: w for v in x}
for y in z, *a:
    b += lambda *c, d=1: c if d else b"e" and u"f" or "\\N{EM DASH}\\ud800"
while not 0 < a <= b in c:
    break
f"a{{{x!r:>{w}.{p}f}}}" "b" f"{y = !s:a{v}b}{f'{z:{w}}':%Y-%m}" rf"\\d{a,}"
"""


@pytest.mark.parametrize(
    "same",
    [
        'import b\nimport a\n\n\ndef f(x):\n    """Other."""\n    # why\n    return (x\n        + 1)\n',
        "import a\nimport b\ndef f(x):\n    return x + 1\n",
    ],
)
def test_comments_docstrings_layout_and_import_order_mean_nothing(same):
    assert meaning(same) == meaning('import a\nimport b\n\ndef f(x):\n    """Doc."""\n    return x + 1\n')


@pytest.mark.parametrize(
    "other",
    [
        "import a\nimport b\ndef f(x):\n    return x + 2\n",
        "import a\nimport c\ndef f(x):\n    return x + 1\n",
        "import a\nimport b\ndef f(x, y):\n    return x + 1\n",
        "import a\nimport b\ndef f(x):\n    return x - 1\n",
        "import a\nimport b\ndef g(x):\n    return x + 1\n",
        "import a\nimport b\ndef f(x):\n    return x + True\n",
        "import a\nimport b\ndef f(x):\n    return 'x' + 1\n",
    ],
)
def test_logic_means_something(other):
    assert meaning(other) != meaning("import a\nimport b\ndef f(x):\n    return x + 1\n")


def test_a_format_nested_in_a_format_means_the_same_on_every_python(monkeypatch):
    source = 'f"{name:{width}} {name:>{width}.{digits}}" "" f"{name=}"\n'
    anywhere = meaning(source)
    # As Python 3.12.1 parses it.
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and node.format_spec:
            node.format_spec.values.append(ast.Constant(""))
    with monkeypatch.context() as patched:
        patched.setattr(ast, "parse", lambda text: tree)
        on_3_12_1 = meaning(source)
    assert on_3_12_1 == anywhere


def test_the_digest_of_code_is_the_same_on_every_python():
    # The digest is written down: whichever Python runs this test is compared with all others.
    assert meaning(EVERY_SYNTAX) == "6ce61e714277460324d363246e3cc1fbb192d0bcd195ef30f00e333ea8ed5705"


def test_an_empty_string_beside_a_string_means_something():
    assert meaning("f'{x}', ''") != meaning("f'{x}',")
