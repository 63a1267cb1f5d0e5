"""The methods by name: what is trained, with which objective, from which samples."""

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.burst_network import Sizes
from l1bsr_geo.models.checkpoint import check_fits, read_checkpoint
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.training.arguments import check_names, fit_arguments
from l1bsr_geo.training.objective import Objective, Source
from l1bsr_geo.training.one_channel import to_one_channel

_NOT_CHOSEN = ("name", "scale", "spec")  # of what builds a network
_BURSTS = ("simulated-bursts", "hdr-dsp-stacks", "skysat")
_VIDEOS = ("simulated-videos",)
_MOSAICS = ("simulated-mosaics", "own-mosaics")
_OVERLAPS = ("simulated-overlaps", "l1bsr-pairs", "sentinel2-l1b")


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        model: what it trains, by its name in ``MODELS``, where a recipe names none.
        objective: "module:class", imported when it is used.
        sources: names in ``SOURCES`` of what it learns from.
        takes_part: whether the objective wants the trained part of the restorer by itself.
    """

    model: str
    objective: str
    sources: tuple[str, ...]
    takes_part: bool = False


METHODS: dict[str, Method] = {
    "act": Method("act", "l1bsr_geo.training.act:choose_act", _BURSTS),  # searched, not trained
    "fnet": Method("fnet", "l1bsr_geo.training.fnet:MotionObjective", _BURSTS),
    "dsa": Method("dsa", "l1bsr_geo.training.dsa:DSAObjective", _BURSTS),
    "hdr-dsp": Method("hdr-dsp", "l1bsr_geo.training.hdr_dsp:HDRDSPObjective", _BURSTS),
    "highres-net": Method(
        "highres-net", "l1bsr_geo.training.highres_net:HighResNetObjective", _BURSTS
    ),
    "csr": Method("csr", "l1bsr_geo.training.csr:CSRObjective", _OVERLAPS, takes_part=True),
    "l1bsr": Method("l1bsr", "l1bsr_geo.training.l1bsr:L1BSRObjective", _OVERLAPS),
    "l1bsr-rcan": Method("l1bsr-rcan", "l1bsr_geo.training.l1bsr:L1BSRObjective", _OVERLAPS),
    "mosaic2mosaic": Method(
        "jdd", "l1bsr_geo.training.mosaic2mosaic:Mosaic2MosaicObjective", _MOSAICS
    ),
    "frame2frame": Method(
        "dncnn", "l1bsr_geo.training.frame2frame:Frame2FrameObjective", ("own-video",)
    ),
    "mf2f": Method("fastdvdnet", "l1bsr_geo.training.mf2f:MF2FObjective", ("own-video",)),
    "noise2noise": Method("dncnn", "l1bsr_geo.training.noise2noise:Noise2NoiseObjective", _VIDEOS),
}
"""Method name to method; a paper's name where there is one."""

SOURCES: dict[str, str] = {
    "simulated-bursts": "l1bsr_geo.training.bursts:SimulatedBursts",
    "simulated-overlaps": "l1bsr_geo.training.overlaps:SimulatedOverlaps",
    "simulated-videos": "l1bsr_geo.training.videos:SimulatedVideos",
    "simulated-mosaics": "l1bsr_geo.training.mosaics:SimulatedMosaics",
    "hdr-dsp-stacks": "l1bsr_geo.training.burst_stacks:BurstStacks",
    "l1bsr-pairs": "l1bsr_geo.training.overlap_pairs:OverlapPairs",
    "own-video": "l1bsr_geo.training.video_windows:VideoWindows",
    "own-mosaics": "l1bsr_geo.training.own_mosaics:OwnMosaics",
    "skysat": "l1bsr_geo.training.own_bursts:OwnBursts",
    "sentinel2-l1b": "l1bsr_geo.training.own_overlaps:OwnOverlaps",
}
"""What samples come from, by its name in recipes: "module:class"."""


@dataclass(frozen=True)
class Student:
    """A network to be trained.

    Attributes:
        network: as the objective wants it.
        part: name of the submodule in it whose weights are written; all where empty.
        scale: fine pixels to a pixel, where the model has several; else None.
        facts: what a weights file must say so that the registry can build the network again.
    """

    network: nn.Module
    part: str
    scale: int | None
    facts: Mapping[str, str]

    def load(self, path: Path, part: str = "") -> None:
        """Start from weights; those of three colours will do for the same network of one channel.

        Args:
            path: of them.
            part: name of the part of the network that they are of; all where empty.

        Raises:
            MissingInputError: there is no such file.
            BadOptionError: there is no such part.
            WeightsError: they are of another network.
        """
        trained = self.network.get_submodule(self.part)
        there = [name for name, _ in trained.named_children()]
        if part:
            check_names([part], there, f"start of {self.facts['model']}")
            trained = trained.get_submodule(part)
        expected = {name: v.shape for name, v in trained.state_dict().items()}
        state = to_one_channel(read_checkpoint(path, expected), expected)
        check_fits(state, expected, f"{path} as a start for {self.facts['model']}")
        trained.load_state_dict(state)


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        BadOptionError: there is none.
    """
    if name not in METHODS:
        raise BadOptionError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def make_student(
    method: Method, model: str, options: Mapping[str, Any], where: str, seed: int
) -> Student:
    """The network of a model, untrained.

    Args:
        method: that will train it.
        model: name in ``MODELS``.
        options: scale and architecture.
        where: for messages: file and key.
        seed: of the first weights.

    Raises:
        BadOptionError: options that the model does not take, or a model that is not trained.
    """
    entry = find_entry(model)
    if not entry.takes_weights:
        raise BadOptionError(f"{where}: {model} has nothing to train")
    architecture = dict(options)
    scale = architecture.pop("scale", None)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        fitted = _fit_architecture(entry.build, architecture, where)
        restorer = entry.make(scale, **fitted)
    facts = {
        "model": model,
        "scale": str(restorer.spec.scale),
        "network": json.dumps(fitted, sort_keys=True),
    }
    scale = restorer.spec.scale if entry.scales else None
    if method.takes_part:
        return Student(entry.trained_part(restorer), "", scale, facts)
    return Student(cast("nn.Module", restorer), entry.network, scale, facts)


def make_objective(
    method: Method, options: Mapping[str, Any], scale: int | None, where: str, root: Path
) -> Objective:
    """The objective of a method.

    Args:
        method: one.
        options: of the objective; ``scale`` need not be among them.
        scale: of the network.
        where: for messages: file and key.
        root: where relative paths start.

    Raises:
        BadOptionError: options that it does not take.
    """
    return cast("Objective", _make(method.objective, options, scale, where, root))


def make_source(
    kind: str, options: Mapping[str, Any], scale: int | None, where: str, root: Path
) -> Source:
    """Where samples come from.

    Args:
        kind: name in ``SOURCES``.
        options: of the source; ``scale`` need not be among them.
        scale: of the network.
        where: for messages: file and key.
        root: where relative paths start.

    Raises:
        BadOptionError: options that it does not take.
    """
    return cast("Source", _make(SOURCES[kind], options, scale, where, root))


def takes(kind: str, option: str) -> bool:
    """Whether a kind of source has an option."""
    return option in inspect.signature(_find(SOURCES[kind])).parameters


def _make(
    place: str, options: Mapping[str, Any], scale: int | None, where: str, root: Path
) -> object:
    target = _find(place)
    if scale is not None and "scale" in inspect.signature(target).parameters:
        options = {"scale": scale, **options}
    return target(**fit_arguments(target, options, where, root))


def _fit_architecture(
    build: Callable[..., object], options: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Options of a network; those that it passes on are sizes."""
    parameters = inspect.signature(build).parameters
    own = [k for k, p in parameters.items() if p.kind is not p.VAR_KEYWORD and k not in _NOT_CHOSEN]
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    sizes = [item.name for item in fields(Sizes)] if passes_on else []
    check_names(options, [*own, *sizes], where)
    passed_on = {k: v for k, v in options.items() if k not in own}
    chosen = {k: v for k, v in options.items() if k in own}
    return fit_arguments(build, chosen, where, Path()) | fit_arguments(
        Sizes, passed_on, where, Path()
    )


def _find(place: str) -> Callable[..., object]:
    module, _, name = place.partition(":")
    return cast("Callable[..., object]", getattr(importlib.import_module(module), name))
