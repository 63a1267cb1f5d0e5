"""Values of a recipe as the arguments of what they are for: named, typed, and refused in a line."""

import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from l1bsr_geo.errors import BadOptionError

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    type(None): "null",
}


class _UnfitError(Exception):
    """A value that is not of a type; the caller says which."""


def fit_arguments(
    target: Callable[..., Any], given: Mapping[str, Any], where: str, root: Path
) -> dict[str, Any]:
    """Keyword arguments for a class or a function, from what a recipe says.

    Lists become tuples, mappings the dataclasses they are for, and what is annotated as a path is
    taken from ``root``.

    Args:
        target: what is to be called; its annotations say what is allowed.
        given: name to value, as YAML gives it.
        where: for messages: file and key.
        root: where relative paths start.

    Raises:
        BadOptionError: a name or a value that it does not take, or one that is missing.
    """
    parameters = inspect.signature(target).parameters
    named = {k: p for k, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if len(named) == len(parameters):
        check_names(given, named, where)
    hints = _hints(target)
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in given:
            raise BadOptionError(f"{where}.{name}: not given, and it has no default")
    return {k: fit_value(v, hints.get(k, Any), f"{where}.{k}", root) for k, v in given.items()}


def check_names(given: Iterable[str], allowed: Collection[str], where: str) -> None:
    """Refuse names that are not among those allowed.

    Raises:
        BadOptionError: with the first such name.
    """
    for name in given:
        if name not in allowed:
            raise BadOptionError(f"{where}: found {name!r}, allowed {', '.join(allowed)}")


def fit_value(value: Any, hint: Any, where: str, root: Path) -> Any:
    """A value of an annotation.

    Raises:
        BadOptionError: it is not of this type.
    """
    try:
        return _fit(value, hint, where, root)
    except _UnfitError:
        raise BadOptionError(f"{where}: found {value!r}, allowed {_name(hint)}") from None


def _fit(value: Any, hint: Any, where: str, root: Path) -> Any:
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _fit_any(value, members, where, root)
    if origin is Literal:
        return _fit_if(value in members, value)
    if isinstance(hint, type) and is_dataclass(hint):
        return hint(**fit_arguments(hint, _fit(value, dict, where, root), where, root))
    if hint is type(None):
        return _fit_if(value is None, value)
    if hint is bool:
        return _fit_if(isinstance(value, bool), value)
    if hint in (int, float):
        return _fit_number(value, hint)
    if hint is str:
        return _fit_if(isinstance(value, str), value)
    if hint is Path:
        return root / _fit(value, str, where, root)
    kind = origin or hint
    if kind in (tuple, list, Sequence):
        return _fit_items(value, kind, members, where, root)
    if kind in (dict, Mapping):
        _fit_if(isinstance(value, dict), value)
        if not members:
            return value
        of = members[1]
        return {name: fit_value(v, of, f"{where}.{name}", root) for name, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _fit_any(value: Any, members: Sequence[Any], where: str, root: Path) -> Any:
    # a text for which a path will do is one: it must not depend on where the command is started;
    # but words that are listed are meant
    for member in sorted(members, key=lambda m: (not _is_literal(m), m is not Path)):
        try:
            return _fit(value, member, where, root)
        except _UnfitError:
            continue
    raise _UnfitError


def _is_literal(hint: Any) -> bool:
    origin: Any = get_origin(hint)
    return origin is Literal


def _fit_number(value: Any, hint: type[int] | type[float]) -> int | float:
    if isinstance(value, str):  # YAML takes 1e-4, without a point, for a text
        try:
            value = float(value)
        except ValueError:
            raise _UnfitError from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnfitError
    _fit_if(hint is float or value == int(value), value)
    return hint(value)


def _fit_items(value: Any, kind: Any, members: Sequence[Any], where: str, root: Path) -> Any:
    _fit_if(isinstance(value, list | tuple), value)
    fixed = kind is tuple and members and members[-1] is not Ellipsis
    hints = members if fixed else [members[0] if members else Any] * len(value)
    _fit_if(len(hints) == len(value), value)
    return tuple(_fit(v, hint, where, root) for v, hint in zip(value, hints, strict=True))


def _fit_if(fits: bool, value: Any) -> Any:
    if not fits:
        raise _UnfitError
    return value


def _name(hint: Any) -> str:
    """An annotation for people."""
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_name(m) for m in members))
    if origin is Literal:
        return ", ".join(map(str, members))
    kind = origin or hint
    if kind is tuple and members and members[-1] is not Ellipsis:
        return f"a list of {len(members)}: {', '.join(_name(m) for m in members)}"
    if kind in (tuple, list, Sequence):
        return f"a list, each {_name(members[0])}" if members else "a list"
    if kind in (dict, Mapping) or is_dataclass(hint):
        return "names with values"
    return _NAMES.get(hint, str(hint))


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(target, partial):
        return _hints(target.func)
    if isinstance(target, type) and not is_dataclass(target):
        return get_type_hints(inspect.getattr_static(target, "__init__"))
    return get_type_hints(target)
