"""Mutations of the configuration after which at most the paper is written anew."""

from collections.abc import Callable
from typing import Any

import yaml

from tests.workflow.mutations.dryrun import TINY
from tests.workflow.mutations.jobs import BENCHMARK, BENCHMARK_TABLE, RENDERING, join, stale
from tests.workflow.mutations.study import Mutation, Study

CONFIG = "config.yaml"
_SUMMED_UP = RENDERING | {BENCHMARK_TABLE}


def wording(key: str, value: Any, expected: frozenset[str] = RENDERING) -> Mutation:
    """A key that only the paper reads."""
    return Mutation(f"{key}: {value}", lambda study: study.set(key, value), expected)


def _rename(method: str, name: str, new: str) -> Callable[[Study], None]:
    """Rename an experiment in both files, its place in the order kept."""

    def edit(study: Study) -> None:
        for file in (CONFIG, TINY):
            config = yaml.safe_load((study.path / file).read_text())
            renamed = _renamed(config, name, new)
            study.settings(lambda old, renamed=renamed: (old.clear(), old.update(renamed)), file)

    return edit


def _renamed(value: Any, name: str, new: str) -> Any:
    if isinstance(value, dict):
        return {new if key == name else key: _renamed(item, name, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, name, new) for item in value]
    return new if value == name else value


def _reordered(value: Any) -> Any:
    """Maps turned round, save those whose order the paper follows."""
    if not isinstance(value, dict):
        return value
    order = {key: item if key in ("ablations", "change") else _reordered(item) for key, item in value.items()}
    return dict(reversed(order.items()))


def _drop(*names: str) -> Callable[[Study], None]:
    def edit(study: Study) -> None:
        def only(config: dict[str, Any]) -> None:
            kept = [name for name in config["sdtp"]["only"] if name not in names]
            config["sdtp"]["only"] = kept

        study.settings(only)

    return edit


def _removed_and_added(study: Study) -> None:
    before = (study.path / TINY).read_bytes()
    _drop("A9")(study)
    study.planned()
    (study.path / TINY).write_bytes(before)


def _changed_and_back(study: Study) -> None:
    study.set("sdtp.ablations.A7.change.schedule.keep_ratio", 0.55)
    study.planned()
    study.set("sdtp.ablations.A7.change.schedule.keep_ratio", 0.5)


def _written_out(study: Study) -> None:
    change = {"shape": {"depth": 5}, "adaptation": {"kind": "dynamic"}}
    study.settings(
        lambda config: config["dynatree"]["ablations"]["E2"].update(
            {"from": None, "versus": "E1", "change": change}
        ),
        CONFIG,
    )


def _decoding_without(name: str) -> Callable[[Study], None]:
    def edit(study: Study) -> None:
        config = yaml.safe_load((study.path / CONFIG).read_text())
        names = [*config["dynatree"]["ablations"], "N0"]
        study.set("dynatree.only", [other for other in names if other != name])

    return edit


PAPER_ALONE = [
    wording("sdtp.ablations.A7.title", "Half of the tokens"),
    wording("sdtp.ablations.A7.hypothesis", "Something else."),
    wording("sdtp.ablations.A7.expect", {"quality": "down_strong"}),
    wording("sdtp.ablations.A7.section", "pruner"),
    wording("sdtp.ablations.A9.versus", "A7"),
    wording("dynatree.ablations.F4.title", "The full method", _SUMMED_UP),
    wording("dynatree.ablations.F4.hypothesis", "Something else."),
    wording("dynatree.ablations.F4.step", "+ another word"),
    wording("dynatree.ablations.K2.expect.below", ["F2"]),
    wording("study", "another", _SUMMED_UP),
    wording("models.tiny_llama.description", "a very small Llama"),
    wording("texts.python.description", "the manual"),
    wording("paper.heading", "subsection"),
    wording("paper.width", "column"),
    wording("paper.provenance", True),
    wording("paper.main", ["baseline", "A1"]),
    wording("paper.forward", ["F1", "F2", "F4"]),
    wording("paper.full_method", "O1"),
    wording("paper.thresholds.text_same", 0.07),
    wording("paper.thresholds.speed_strong", 1.7),
    wording("paper.thresholds.alpha", 0.1, _SUMMED_UP),
    wording("paper.looks", [{"documents": 6, "retrieval": 4, "alpha": 0.05}]),
    wording("paper.confirmatory.dynatree", ["F4"]),
    wording("sdtp.seeds", [0]),
    Mutation("an SDTP ablation renamed", _rename("sdtp", "A7", "Half"), RENDERING),
    Mutation("a decoding ablation renamed", _rename("dynatree", "E2", "Dyn"), _SUMMED_UP),
    Mutation("an SDTP ablation removed", _drop("A9"), RENDERING),
    Mutation("a decoding ablation removed", _decoding_without("PL"), stale({BENCHMARK, "collect"})),
    Mutation(
        "an ablation given another's value",
        lambda study: study.set("sdtp.ablations.C2.change.propagation", "stale_keys"),
        RENDERING,
    ),
    Mutation(
        "an ablation given the baseline's value",
        lambda study: study.set("sdtp.ablations.C1.change.mask", "hard"),
        # It has fewer documents than the baseline, and no time.
        stale(join("C1")),
    ),
]
"""What the paper says, and how."""

NOTHING = [
    wording("resources.gpu", 1, frozenset()),
    wording("resources.mem_mb", 8000, frozenset()),
    wording("resources.runtime", 10, frozenset()),
    wording("panel.documents", 4, frozenset()),
    wording("panel.experiments", 2, frozenset()),
    wording("sdtp.ablations.A7.compound", True, frozenset()),
    wording("texts.written.description", "of no row", frozenset()),
    wording("texts.more", {"source": "local", "path": "README.md"}, frozenset()),
    wording("models.tiny_draft.description", "a very small draft", frozenset()),
    wording("models.more", {"source": "random", "architecture": "llama", "layers": 1}, frozenset()),
    wording("dynatree.drafters.more", {"kind": "prompt_lookup"}, frozenset()),
    wording("sdtp.training.temperature", 0.50, frozenset()),
    # Two prompts of each kind are timed of all experiments.
    Mutation(
        "dynatree.decoding.exploratory: None",
        lambda study: study.settings(lambda config: config["dynatree"]["decoding"].update(exploratory=None)),
    ),
    Mutation("comments in config.yaml", lambda study: study.append(CONFIG, "\n# a comment\n")),
    Mutation("config.yaml formatted anew", lambda study: study.settings(lambda config: None, CONFIG)),
    Mutation(
        "keys of config.yaml in another order",
        lambda study: study.settings(
            lambda config: _in_place(config, _reordered(config)),
            CONFIG,
        ),
    ),
    Mutation("an ablation removed and added again", _removed_and_added),
    Mutation("a value changed and changed back", _changed_and_back),
    Mutation("an inherited change written out", _written_out),
]
"""What nobody reads, and what is as it was."""


def _in_place(config: dict[str, Any], new: dict[str, Any]) -> None:
    config.clear()
    config.update(new)


WORDING = [*PAPER_ALONE, *NOTHING]
