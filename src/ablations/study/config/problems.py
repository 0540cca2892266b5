"""A raw value against its contract: the first problem is one line that names the key."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ablations.core.contract import Contract
from ablations.core.errors import UserError

Checked = TypeVar("Checked", bound=Contract)

_SHORT = Repr()
_SHORT.maxstring = 80


def validated(model: type[Checked], raw: Any, prefix: str) -> Checked:
    """A raw value as the contract `model`.

    Args:
        model: The contract.
        raw: The value, as YAML gives it.
        prefix: Its key in the configuration; empty for the whole of it.

    Raises:
        UserError: the first problem, naming its key.
    """
    try:
        value = model.model_validate(raw)
    except ValidationError as error:
        raise UserError(_first_problem(error, model, raw, prefix)) from None
    _check_truth_values(raw, value, prefix)
    return value


def check_known(key: str, names: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """Check that names are known.

    Args:
        key: Key that names them.
        names: The names.
        allowed: Names that there are.
        where: What those are called, for the message.

    Raises:
        UserError: one is not, with the nearest that is.
    """
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            raise UserError(f"{key}: {name!r} is not in {where}{_suggestion(name, allowed)}")


def _check_truth_values(raw: Any, value: Any, key: str) -> None:
    """Refuse what pydantic converts: true where a number belongs, 1 or "yes" where true belongs."""
    if isinstance(raw, Mapping):
        fields = _fields(type(value)) if isinstance(value, BaseModel) else {}
        for name, inner in raw.items():
            # An entry that is null may have been left out.
            own = getattr(value, fields[name]) if fields else value.get(name)
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
    path = _keys_in(raw, problem)
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


def _keys_in(raw: Any, problem: ErrorDetails) -> list[str]:
    """The parts of a problem's location that are keys of the document (union tags are not), or may be."""
    location = problem["loc"]
    # A key that is missing ends the location, and the key of a conflict may have been left to its default.
    conflict = problem["ctx"]["key"].split(".") if problem["type"] == "conflict" else []
    end = len(location) - (1 if problem["type"] == "missing" else len(conflict))
    keys: list[str] = []
    for part in location[:end]:
        if part in raw if isinstance(raw, Mapping) else isinstance(part, int):
            keys.append(str(part))
            raw = raw[part]
    return [*keys, *map(str, location[end:])]


def _allowed(model: Any, raw: Any, path: list[str]) -> list[str]:
    """Keys allowed at `path`, following the contract's annotations."""
    options = _models_in(model)
    for key in path:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
        options = [
            inner
            for option in options
            for inner in (
                _models_in(option.model_fields[_fields(option)[key]].annotation)
                if key in _fields(option)
                # Not a field of the contract: an entry of a map of such.
                else [option]
            )
        ]
    return list(dict.fromkeys(key for option in options for key in _fields(option)))


def _fields(model: type[BaseModel]) -> dict[str, str]:
    """Names of a contract's fields by the keys that a configuration has for them."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


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
