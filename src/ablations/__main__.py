"""What can be run without Snakemake: ``python -m ablations --help``."""

import argparse
import ast
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import ablations

ROOT = Path(*ablations.__path__)


def main() -> None:
    """Print every module of the package that has a command line, and what it does."""
    commands = dict(runnable())
    width = max(map(len, commands))
    parser = argparse.ArgumentParser(
        prog="python -m ablations",
        description="What can be run without Snakemake, each as `python -m MODULE`:\n\n"
        + "\n".join(f"  {name:{width}}  {about}" for name, about in commands.items()),
        epilog="Each has --help with an example; `python -m ablations.study show ID` prints the command that"
        "\nmeasures one experiment.\n\nexample: python -m ablations.study show A7",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    parser.print_help()


def runnable() -> Iterator[tuple[str, str]]:
    """Name and first line of each module that ``python -m`` runs; nothing is imported to find it."""
    for module in pkgutil.walk_packages([str(ROOT)], "ablations."):
        path = ROOT.joinpath(*module.name.split(".")[1:]).with_suffix(".py")
        name = module.name.removesuffix(".__main__")
        if module.ispkg or name == "ablations":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body):
            yield name, (ast.get_docstring(tree) or "").splitlines()[0]


if __name__ == "__main__":
    main()
