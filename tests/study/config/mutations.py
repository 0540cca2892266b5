"""A study that has every key of the configuration, and what a slip of the hand can make of each."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from ablations.study.config.validation import load_study

ROOT = Path(__file__).parents[3]

Place = tuple[str | int, ...]

HUGE = 10**30
ODD = (
    'it\'s "quoted"',
    "$(touch pwned)",
    "`touch pwned`; touch pwned",
    "two\nlines",
    "\\input{x} # {y} %s",
    "long" * 2000,
    "\ud800",
)
NUMBERS = (-1, -0.5, HUGE, 1e300, float("nan"), float("inf"), True)
VALUES = (None, "", [], {}, "word", ["word"], [[]], {"word": 1}, {1: 2}, 0, 0.5, 3, *NUMBERS, *ODD)

# Entries of kinds that neither the default study nor an overlay below has.
FURTHER = {
    "resources": {"gpu": 1},
    "models": {
        "draft": {"source": "random", "architecture": "llama", "layers": 2},
        "hub": {"source": "pretrained", "name": "org/model", "revision": "main", "layers": 3},
    },
    "texts": {
        "stories": {"source": "dataset", "name": "json", "data_files": "texts/chat.jsonl", "documents": 9},
    },
    "sdtp": {
        "ablations": {"Z1": {"title": "All", "section": "mine", "change": {"schedule": {"match": "flops"}}}}
    },
    "dynatree": {
        "drafters": {"neural": {"kind": "neural", "model": "draft"}},
        "ablations": {"Z2": {"title": "Neural", "section": "mine", "change": {"drafter": "neural"}}},
    },
}


def complete_study() -> dict[str, Any]:
    """The full study with every key that has a default written out."""
    raw: dict[str, Any] = {}
    for name in ("config.yaml", "workflow/studies/full.yaml"):
        update_config(raw, yaml.safe_load((ROOT / name).read_text()))
    update_config(raw, copy.deepcopy(FURTHER))
    written = load_study(raw).model_dump(mode="json", by_alias=True)
    # Descriptions are never dumped: no spec may have them.
    for kind in ("models", "texts"):
        for name, source in written[kind].items():
            source["description"] = raw[kind][name].get("description", "")
    return written


def places(node: Any, path: Place = ()) -> Iterator[Place]:
    """Path of every key and of every entry of a list, the root left out."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(node: Any, path: Place) -> Any:
    """What lies at a path."""
    for key in path:
        node = node[key]
    return node


def changed(raw: dict[str, Any], path: Place, value: Any) -> dict[str, Any]:
    """A copy with another value at `path`."""
    copied = copy.deepcopy(raw)
    at(copied, path[:-1])[path[-1]] = copy.deepcopy(value)
    return copied


def renamed(raw: dict[str, Any], path: Place, key: Any) -> dict[str, Any]:
    """A copy in which the last key of `path` is called `key`, its place kept."""
    copied = copy.deepcopy(raw)
    parent = at(copied, path[:-1])
    items = [(key if old == path[-1] else old, value) for old, value in parent.items()]
    parent.clear()
    parent.update(items)
    return copied


def removed(raw: dict[str, Any], path: Place) -> dict[str, Any]:
    """A copy without what lies at `path`."""
    copied = copy.deepcopy(raw)
    del at(copied, path[:-1])[path[-1]]
    return copied


def mutants(raw: dict[str, Any], path: Place) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every slip at one key: other values, a typo, an unknown neighbour, a key that is no text, no key."""
    for value in VALUES:
        yield f"= {value!r}", partial(changed, raw, path, value)
    yield "removed", partial(removed, raw, path)
    if isinstance(path[-1], int):
        return
    yield "misspelt", partial(renamed, raw, path, path[-1][:-1] + "_" + path[-1][-1:])
    yield "no text", partial(renamed, raw, path, 7)
    yield "of two lines", partial(renamed, raw, path, f"{path[-1]}\n$(touch pwned)")
    yield "beside an unknown key", partial(changed, raw, (*path[:-1], "unheard_of"), 1)
