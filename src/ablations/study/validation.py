"""From the raw configuration to a checked one; each problem is one line that names the key."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, TypeVar, get_args

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ValidationError

from ablations.study.config import Ablation, DynatreeBaseline, SdtpBaseline, StudyConfig
from ablations.study.contracts.base import Contract
from ablations.study.contracts.dynatree import (
    DistilledDrafter,
    Drafter,
    HybridDrafter,
    NeuralDrafter,
    NgramDrafter,
)
from ablations.study.contracts.lm import ModelSource, TextSource, WheelModel, WheelText
from ablations.study.errors import UserError

Baseline = TypeVar("Baseline", bound=Contract)
AnyAblation = TypeVar("AnyAblation", bound=Ablation)

BASELINE = "baseline"

_SHORT = Repr()
_SHORT.maxstring = 80

# A decoding job knows its texts by name, beside these inputs of its own.
RESERVED_TEXTS = ("model", "draft", "ngram", "distilled", "costs")

# Components that one method has and the other does not: the method, and the other.
FOREIGN_GROUPS = {
    **{
        group: ("SDTP", "DynaTree")
        for group in SdtpBaseline.model_fields
        if group not in DynatreeBaseline.model_fields
    },
    **{
        group: ("DynaTree", "SDTP")
        for group in DynatreeBaseline.model_fields
        if group not in SdtpBaseline.model_fields
    },
}


def load_study(raw: Mapping[str, Any]) -> StudyConfig:
    """Check a raw configuration, cross-references included.

    Raises:
        UserError: the first problem found, naming its key.
    """
    _check_text(raw, "")
    config = _validate(StudyConfig, raw, "")
    for kind, sources in (("models", config.models), ("texts", config.texts)):
        for name, source in sources.items():
            _check_wheel(f"{kind}.{name}", source)
    for name in RESERVED_TEXTS:
        if name in config.texts:
            raise UserError(f"texts.{name}: this name is a job's own; choose another")
    _known("sdtp.model", [config.sdtp.model], config.models, "models")
    _known("sdtp.text", [config.sdtp.text], config.texts, "texts")
    if config.sdtp.saliency.text is not None:
        _known("sdtp.saliency.text", [config.sdtp.saliency.text], config.texts, "texts")
    _known("dynatree.target", [config.dynatree.target], config.models, "models")
    for name, prompts in config.dynatree.prompts.items():
        _known(f"dynatree.prompts.{name}.text", [prompts.text], config.texts, "texts")
    calibration = config.dynatree.calibration
    for name, prompts in calibration.prompts.items() if calibration else ():
        _known(f"dynatree.calibration.prompts.{name}.text", [prompts.text], config.texts, "texts")
    for name, drafter in config.dynatree.drafters.items():
        _check_drafter(f"dynatree.drafters.{name}", drafter, config)
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
    if benchmark := config.dynatree.benchmark:
        _known("dynatree.benchmark.best_of", benchmark.best_of, decoding, "dynatree.ablations")
        if shared := set(benchmark.transformers) & set(decoding):
            raise UserError(
                f"dynatree.benchmark.transformers.{min(shared)}: this id is also in dynatree.ablations;"
                " choose another"
            )
    _known("paper.main", config.paper.main, [*config.sdtp.ablations, BASELINE], "sdtp.ablations")
    _known("paper.forward", config.paper.forward, decoding, "dynatree.ablations")
    _known("paper.backward", config.paper.backward, decoding, "dynatree.ablations")
    _known("paper.full_method", [config.paper.full_method], decoding, "dynatree.ablations")
    return config


def _check_text(raw: Any, key: str) -> None:
    """Check that keys are text of one line, and that text can be written as UTF-8."""
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


def _check_drafter(key: str, drafter: Drafter, config: StudyConfig) -> None:
    match drafter:
        case NgramDrafter():
            _known(f"{key}.texts", drafter.texts, config.texts, "texts")
        case DistilledDrafter():
            _known(f"{key}.text", [drafter.text], config.texts, "texts")
        case NeuralDrafter():
            _known(f"{key}.model", [drafter.model], config.models, "models")
        case HybridDrafter():
            drafters = config.dynatree.drafters
            for kind in ("distilled", "ngram"):
                fitting = [name for name, other in drafters.items() if other.kind == kind]
                where = f"dynatree.drafters of kind '{kind}'"
                _known(f"{key}.{kind}", [getattr(drafter, kind)], fitting, where)


def selected(ablations: Mapping[str, AnyAblation], only: Iterable[str] | None) -> dict[str, AnyAblation]:
    """The ablations to run, in the order of the configuration."""
    wanted = set(ablations if only is None else only)
    return {name: ablation for name, ablation in ablations.items() if name in wanted}


def changed(baseline: Baseline, ablation: Ablation, key: str) -> Baseline:
    """The baseline with an ablation's change applied.

    Args:
        baseline: Component groups of the baseline.
        ablation: What to change.
        key: Key of the ablation in the configuration, for errors.

    Raises:
        UserError: an unknown or impossible value, or two component groups without `compound`.
    """
    groups = list(ablation.change)
    for group, (method, other) in FOREIGN_GROUPS.items():
        if group in groups and group not in type(baseline).model_fields:
            raise UserError(
                f"{key}.change.{group}: this component is {method}'s; pruned prompts and drafted tokens"
                f" together are not supported, change components of {other} alone"
            )
    _known(f"{key}.change", groups, type(baseline).model_fields, "the component groups")
    if len(groups) > 1 and not ablation.compound:
        raise UserError(
            f"{key}.change: touches {len(groups)} component groups ({', '.join(groups)});"
            " isolate one, or say compound: true"
        )
    merged = _merge(baseline.model_dump(), ablation.change)
    return _validate(type(baseline), merged, f"{key}.change")


def _merge(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return {**base, **{key: _merge(base.get(key), value) for key, value in change.items()}}


def _validate(model: type[Baseline], raw: Any, prefix: str) -> Baseline:
    try:
        value = model.model_validate(raw)
    except ValidationError as error:
        raise UserError(_first_problem(error, model, raw, prefix)) from None
    _check_truth_values(raw, value, prefix)
    return value


def _check_truth_values(raw: Any, value: Any, key: str) -> None:
    """Refuse what pydantic converts: true where a number belongs, 1 or "yes" where true belongs."""
    if isinstance(raw, Mapping):
        for name, inner in raw.items():
            # An entry that is null may have been left out.
            own = getattr(value, name) if isinstance(value, BaseModel) else value.get(name)
            _check_truth_values(inner, own, f"{key}.{name}" if key else name)
    elif isinstance(raw, list | tuple):
        for number, (inner, own) in enumerate(zip(raw, value, strict=True)):
            _check_truth_values(inner, own, f"{key}.{number}")
    elif isinstance(raw, bool) != isinstance(value, bool):
        numbers = isinstance(raw, bool)
        wanted = "input should be a number, not a truth value" if numbers else "input should be true or false"
        raise UserError(f"{key}: {wanted} (got {raw!r})")


def _first_problem(error: ValidationError, model: type[BaseModel], raw: Any, prefix: str) -> str:
    """First problem as ``key: what is wrong``, with the nearest allowed key for a typo."""
    # A typo shows up twice, as an unknown key and as a missing one: the unknown one says more.
    problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    path = _keys_in(raw, problem["loc"])
    key = ".".join([prefix, *path] if prefix else path) or "config"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggestion(path[-1], _allowed(model, raw, path[:-1]))}"
    if problem["type"] == "missing":
        return f"{key}: missing; this key is required"
    message = problem["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    message = re.sub(r"a valid dictionary( or .*)?$", "a map of keys", message)
    message = " ".join(message.split())
    message = message[:1].lower() + message[1:]
    value = problem["input"]
    shown = f" (got {_SHORT.repr(value)})" if isinstance(value, str | int | float | bool | None) else ""
    return f"{key}: {message}{shown}"


def _keys_in(raw: Any, location: tuple[int | str, ...]) -> list[str]:
    """The parts of a pydantic location that are keys of the document (union tags are not)."""
    keys: list[str] = []
    for index, part in enumerate(location):
        known = part in raw if isinstance(raw, Mapping) else isinstance(part, int)
        # The last part of a location may name a key that is missing.
        missing = isinstance(raw, Mapping) and index == len(location) - 1
        if known or missing:
            keys.append(str(part))
        if known:
            raw = raw[part]
    return keys


def _allowed(model: Any, raw: Any, path: list[str]) -> list[str]:
    """Keys allowed at `path`, following the contract's annotations."""
    options = _models_in(model)
    for key in path:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
        options = [
            inner
            for option in options
            for inner in (
                _models_in(option.model_fields[key].annotation)
                if key in option.model_fields
                else ([option] if _is_entry(option, key) else [])
            )
        ]
    names = [name for option in options for name in option.model_fields]
    return list(dict.fromkeys(names))


def _is_entry(option: type[BaseModel], key: str) -> bool:
    """Whether `key` names an entry of a map of `option`s rather than one of its fields."""
    return key not in option.model_fields


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _suggestion(key: str, allowed: Iterable[str]) -> str:
    names = list(allowed)
    close = get_close_matches(key, names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; allowed: {', '.join(names)}" if names else ""


def _known(key: str, names: Iterable[str], allowed: Iterable[str], where: str) -> None:
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            raise UserError(f"{key}: {name!r} is not in {where}{_suggestion(name, allowed)}")


def _check_references(
    method: str, ablations: Mapping[str, Ablation], only: Iterable[str] | None, extra: list[str]
) -> None:
    _known(f"{method}.only", only or [], ablations, f"{method}.ablations")
    running = [*selected(ablations, only), *extra]
    for name, ablation in selected(ablations, only).items():
        key = f"{method}.ablations.{name}"
        where = f"{method}.ablations" if only is None else f"{method}.only"
        if ablation.versus is not None:
            _known(f"{key}.versus", [ablation.versus], running, where)
        for relation in ("above", "below", "about", "less_traffic"):
            _known(f"{key}.expect.{relation}", getattr(ablation.expect, relation), running, where)
