"""Where a network's parameters are in what a torch file holds."""

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

State: TypeAlias = Mapping[str, Tensor]
"""Parameter name to tensor."""

Shapes: TypeAlias = Mapping[str, torch.Size]
"""Parameter name to shape, in the network's order."""

WHERE = ("state_dict", "model_state_dict", "model", "net", "network", "params", "params_ema")
"""Under which names the parameters of a network usually are."""

_DEPTH = 16  # of dictionaries in each other; one can even hold itself
_PREFIXES = ("module.", "model.", "_orig_mod.")


def find_state(loaded: object, expected: Shapes | None = None) -> dict[str, Tensor]:
    """The parameters in a loaded file; empty where there are none.

    They may lie beside other things (epoch, optimizer), under a common prefix (``module.``), and
    those of a network of several parts part by part, at any depth and under any names: a part is
    known by the names and shapes of its parameters.

    Args:
        loaded: what a torch file holds.
        expected: the network's; without it, parts get their place in the file as prefix.
    """
    parts = _find_parts(loaded)
    joined = None if expected is None else _join_parts(list(parts.values()), expected)
    if joined is not None:
        return joined
    usual = _find_usual(loaded)
    if usual is not None:
        return _clean(usual)
    return {f"{where}.{name}": v for where, part in parts.items() for name, v in part.items()}


def _find_parts(loaded: object, where: str = "", depth: int = 0) -> dict[str, dict[str, Tensor]]:
    """Every dictionary of tensors, by its place in the file."""
    strings = isinstance(loaded, Mapping) and all(isinstance(name, str) for name in loaded)
    if not isinstance(loaded, Mapping) or not strings or depth == _DEPTH:
        return {}  # an optimizer's have numbers for names
    if loaded and all(isinstance(v, Tensor) for v in loaded.values()):
        return {where: _clean(loaded)}
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in loaded.items():
        found |= _find_parts(value, f"{where}.{name}" if where else name, depth + 1)
    return found


def _find_usual(loaded: object, depth: int = 0) -> State | None:
    if not isinstance(loaded, Mapping) or depth == _DEPTH:
        return None
    if loaded and all(isinstance(v, Tensor) for v in loaded.values()):
        return {str(name): v for name, v in loaded.items()}
    inner = (_find_usual(loaded[key], depth + 1) for key in WHERE if key in loaded)
    return next((state for state in inner if state is not None), None)


def _join_parts(parts: list[dict[str, Tensor]], expected: Shapes) -> dict[str, Tensor] | None:
    """The network's parameters, whole or from its direct parts; None where one is not there."""

    def find(wanted: Shapes) -> dict[str, Tensor] | None:
        fitting = (p for p in parts if {name: v.shape for name, v in p.items()} == wanted)
        return next(fitting, None)

    whole = find(expected)
    if whole is not None:
        return whole
    joined: dict[str, Tensor] = {}
    for prefix in dict.fromkeys(name.partition(".")[0] + "." for name in expected):
        wanted = {
            name.removeprefix(prefix): shape
            for name, shape in expected.items()
            if name.startswith(prefix)
        }
        part = find(wanted)
        if part is None:
            return None
        joined |= {prefix + name: value for name, value in part.items()}
    return joined


def _clean(state: State) -> dict[str, Tensor]:
    """Without common prefixes and without FNet's second names.

    FNet as published holds every level twice, by its name and in a sequence, which is what runs.
    """
    state = dict(state)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _clean({name.removeprefix(prefix): v for name, v in state.items()})
    levels = [f"conv{kind}{i}." for kind in ("Pool", "Binl") for i in (1, 2, 3)]
    for i, level in enumerate(levels):
        for name in [name for name in state if name.startswith(f"seq.{i}.")]:
            state[level + name.removeprefix(f"seq.{i}.")] = state.pop(name)
    return state
