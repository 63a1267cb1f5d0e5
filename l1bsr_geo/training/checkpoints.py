"""What a training leaves on disk: its state to continue from, and the weights it was for."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    MissingInputError,
    OutputExistsError,
)
from l1bsr_geo.training.averaging import AveragedNetwork

CHECKPOINT = "checkpoint.pt"


@dataclass
class RunState:
    """Where a training is.

    Attributes:
        iteration: the last that is done.
        best: the best score so far, None before any.
        best_iteration: when it was.
        since_gain: validations since then.
        seconds: of work, over all sessions.
        sums: of loss and parts since the last line of the log, and their number.
        hardware: that it ran on, one or several.
    """

    iteration: int = 0
    best: float | None = None
    best_iteration: int = 0
    since_gain: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    hardware: str = ""


@dataclass(frozen=True)
class Learner:
    """All that changes while a network is trained."""

    network: nn.Module
    average: AveragedNetwork
    optimiser: torch.optim.Optimizer
    state: RunState

    def save(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """Write the checkpoint; a crash leaves the one before."""
        content = {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "state": asdict(self.state),
            "recipe": json.dumps(plain(recipe)),
        }
        write_whole(folder / CHECKPOINT, lambda path: torch.save(content, path))

    def load(self, folder: Path, recipe: Mapping[str, Any], device: torch.device) -> None:
        """Go back to the checkpoint.

        Raises:
            BadInputError: it cannot be read.
            BadOptionError: it was written with another recipe.
        """
        path = folder / CHECKPOINT
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            told, state = json.loads(content["recipe"]), RunState(**content["state"])
        except (RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError) as error:
            raise BadInputError(f"{path}: not a checkpoint of a training: {error}") from error
        differing = list_differences(told, plain(recipe))
        if differing:
            raise BadOptionError(
                f"{folder} was trained with another recipe: {'; '.join(differing)}; resume with "
                "the same or take another folder"
            )
        self.network.load_state_dict(content["network"])
        self.average.network.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        vars(self.state).update(vars(state))


def check_folder(folder: Path, resume: bool) -> None:
    """Whether a training may begin, or be resumed, in a folder.

    Raises:
        OutputExistsError: it holds a training, which would be overwritten.
        MissingInputError: it holds none to resume.
    """
    path = folder / CHECKPOINT
    if resume and not path.is_file():
        raise MissingInputError(f"{path}: no training to resume there; start it without resume")
    if not resume and path.is_file():
        raise OutputExistsError(
            f"{folder} holds a training already; resume it or take another folder"
        )


def list_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two recipes, one entry to a value."""
    old, new = _flatten(before), _flatten(now)
    return [
        f"{name} was {old.get(name, 'not given')} and is {new.get(name, 'not given')}"
        for name in sorted({*old, *new})
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]


def plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as JSON would give it back."""
    result: dict[str, Any] = json.loads(json.dumps(recipe, default=_plain_value))
    return result


def write_weights(path: Path, network: nn.Module, facts: Mapping[str, str]) -> None:
    """Write the weights of a network in fp32, with facts about them."""
    state = {name: v.detach().cpu().contiguous() for name, v in network.state_dict().items()}
    state = {name: v.float() if v.is_floating_point() else v for name, v in state.items()}
    content = safetensors.torch.save(state, dict(facts))  # save_file would hide it from others
    write_whole(path, lambda part: part.write_bytes(content))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file such that it is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    write(part)
    with part.open("rb") as file:
        os.fsync(file.fileno())  # or else the name may reach the disk before the content
    part.replace(path)


def _flatten(recipe: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        whole = f"{before}{name}"
        flat |= _flatten(value, f"{whole}.") if isinstance(value, Mapping) else {whole: value}
    return flat


def _plain_value(value: object) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
