"""What YAML lets pass and a study does not."""

from pathlib import Path

import yaml

from ablations.study.errors import UserError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def require_distinct_keys(path: Path) -> None:
    """Check that no map of a YAML file has a key twice: of two experiments of one id, one would be lost.

    Raises:
        UserError: one has, or the file is not YAML.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    nodes = [] if root is None else [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            _check(path, node)
            nodes += [value for _, value in node.value]


def _check(path: Path, node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value in seen:
            raise UserError(
                f"{path}: line {key.start_mark.line + 1}: the key '{key.value}' is there twice, and the first"
                " one would be lost; rename or remove one"
            )
        seen.add(key.value)
