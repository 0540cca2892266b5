"""Mutations of the source: a changed meaning reruns what executes it, a changed look nothing."""

import ast
from collections.abc import Callable

from tests.workflow.mutations.closure import all_modules, jobs_that_run
from tests.workflow.mutations.jobs import stale
from tests.workflow.mutations.study import Mutation, Study


def _everywhere(change: Callable[[str], str]) -> Callable[[Study], None]:
    """Apply a change of text to every module."""

    def edit(study: Study) -> None:
        for file in all_modules():
            path = study.path / "src" / file
            path.write_text(change(path.read_text()))

    return edit


def _with_comments(text: str) -> str:
    """A comment before every statement of the module, and at the end of its last line."""
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        lines.insert(node.lineno - 1 - len(getattr(node, "decorator_list", [])), "# a comment")
    return "\n".join([*lines, "# the end", ""])


def _with_other_docstrings(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            node.value.value += " In other words."
    return ast.unparse(tree)


def _without_docstrings_of_modules(text: str) -> str:
    tree = ast.parse(text)
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    return ast.unparse(tree)


def _formatted(text: str) -> str:
    """No comments, other quotes, other line breaks: as the standard library prints a syntax tree."""
    return ast.unparse(ast.parse(text))


def _imports_turned_round(text: str) -> str:
    """Runs of imports in reverse order, and the names of each in reverse order too."""
    tree = ast.parse(text)
    body, run = [], []
    for node in [*tree.body, None]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            if isinstance(node, ast.ImportFrom):
                node.names.reverse()
            run.insert(0, node)
            continue
        body += run
        run = []
        if node is not None:
            body.append(node)
    tree.body = body
    return ast.unparse(tree)


LOOKS = [
    Mutation("comments in every module", _everywhere(_with_comments)),
    Mutation("every docstring in other words", _everywhere(_with_other_docstrings)),
    Mutation("modules without docstrings", _everywhere(_without_docstrings_of_modules)),
    Mutation("every module formatted anew", _everywhere(_formatted)),
    Mutation("imports of every module in reverse order", _everywhere(_imports_turned_round)),
    Mutation(
        "a new module that nobody imports",
        lambda study: (study.path / "src/ablations/sdtp/extra.py").write_text("X = 1\n"),
    ),
]
"""What the source looks like."""


def logic(file: str) -> Mutation:
    """One more name in a module, which is a change of meaning."""

    def edit(study: Study) -> None:
        study.append(f"src/{file}", "\n\nMUTATED = 1\n")

    return Mutation(f"logic of {file.removeprefix('ablations/')}", edit, stale(jobs_that_run(file)))


CONFIG = "study/config/dynatree.py"
DECODE = "specs/dynatree/decode.py"


def _rewritten(file: str, old: str, new: str) -> Mutation:
    def edit(study: Study) -> None:
        study.replace(f"src/ablations/{file}", old, new)

    return Mutation(f"{file}: {old} -> {new}", edit, stale(jobs_that_run(f"ablations/{file}")))


def _default_of_a_key(study: Study) -> None:
    study.replace(f"src/ablations/{CONFIG}", "max_nodes: PositiveInt = 128", "max_nodes: PositiveInt = 127")


def _default_that_counts(study: Study) -> None:
    # The benchmark has the warm-up of decoding, and no discarded rounds.
    study.replace(f"src/ablations/{DECODE}", "discarded: NonNegativeInt = 0", "discarded: NonNegativeInt = 1")


LOGIC = [
    *(logic(file) for file in all_modules()),
    Mutation("the default of a key that the study sets itself", _default_of_a_key),
    Mutation(
        "the default of a key that the study leaves alone",
        _default_that_counts,
        stale(jobs_that_run(f"ablations/{DECODE}")),
    ),
    _rewritten("evidence/statistics.py", "T_BELOW = ", "T_BELOW = 1 + "),
    _rewritten("sdtp/training/losses.py", " - ", " + "),
    _rewritten("lm/timing.py", "def ", "def later(): return 1\n\n\ndef "),
]
"""What the source means."""

SOURCES = [*LOOKS, *LOGIC]
