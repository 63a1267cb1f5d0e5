"""What a model file of one's own must tell: bands, scale, halo, units; from YAML or its metadata.

    model: net.onnx
    bands: [B02, B03, B04, B08]
    gain: 10000

is the least that a spec says; ``ModelSpec`` explains the rest. The four keys of
sentinel2_superresolution (``model``, ``bands``, ``factor``, ``margin``) are read, too: its margin
is in fine pixels, and its networks take whole numbers as they are stored (reflectance x 10000).
"""

import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import yaml

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.model import Aligned
from l1bsr_geo.models.base import ModelSpec, Padding

Layout: TypeAlias = Literal["channels-first", "channels-last"]

SUFFIXES = (".onnx", ".pt2")
"""Graphs that can be run."""

SPEC_SUFFIXES = (".yaml", ".yml")
METADATA = "l1bsr_geo"
"""Where a graph that we wrote keeps its facts, as JSON."""

_LARGEST = 1 << 16  # [bytes] of a spec
_MOST_BANDS = 1000


@dataclass(frozen=True)
class FileFacts:
    """What is told of a graph; None where its shapes and its answers must tell it.

    Attributes:
        name: of the model.
        bands: names in the order of the graph's channels, or "any".
        gain: DN per unit of its input.
        scale: fine pixels to a pixel.
        halo: context it depends on [px].
        aligned: which fine pixel sits where.
        multiple: height and width must be multiples of this.
        padding: what others are made larger with.
        mean: taken off the input of every channel, and added to the result [DN / gain].
        std: what the input is divided by then, and the result multiplied with.
        layout: where the channels stand.
        scene_statistics: whether it takes what is pooled over the scene; only our own do.
        source: paper and place.
        licence: SPDX name.
        weights_sha256: of the weights that it was made of.
    """

    name: str
    bands: tuple[str, ...] | Literal["any"]
    gain: float
    scale: int | None = None
    halo: int | None = None
    aligned: Aligned = "corner"
    multiple: int = 1
    padding: Padding = "edge"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "channels-first"
    scene_statistics: bool = False
    source: str = ""
    licence: str | None = None
    weights_sha256: str | None = None

    def as_json(self) -> str:
        """All that is told and not as usual."""
        usual = {field.name: field.default for field in fields(self)}
        return json.dumps({k: v for k, v in asdict(self).items() if v != usual[k]})


def read_spec(path: Path) -> tuple[Path, dict[str, Any]]:
    """The graph that a YAML spec names, and what it says of it.

    Raises:
        MissingInputError: there is no such file.
        BadInputError: it is no YAML, or no spec.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: there is no such spec of a model")
    if path.stat().st_size > _LARGEST:
        raise BadInputError(f"{path}: has {path.stat().st_size} bytes; a spec has a few lines")
    text = path.read_bytes()
    if sum(text.count(mark) for mark in (b"[", b"{", b"&", b"*")) > _MOST_BANDS:
        raise BadInputError(f"{path}: is nested too much for a spec")
    try:
        told = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise BadInputError(f"{path}: is not YAML ({why})") from None
    if not isinstance(told, dict) or not isinstance(told.get("model"), str):
        raise BadInputError(f"{path}: is no spec of a model; such as {TEMPLATE}")
    told = {str(key): value for key, value in told.items()}
    graph = path.parent / told.pop("model")
    if graph.suffix.lower() not in SUFFIXES:
        raise BadInputError(
            f"{path}: model: found {graph.name}, expected a file ending in {' or '.join(SUFFIXES)}"
        )
    return graph, told


def parse_metadata(text: str, where: str) -> dict[str, Any]:
    """The facts that a graph carries itself.

    Raises:
        BadInputError: they are not JSON.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise BadInputError(f"{where}: its metadata {METADATA} are not a JSON object")
    return told


def fit_facts(told: Mapping[str, Any], where: str, name: str, graph: str) -> FileFacts:
    """What is told, typed and complete.

    Args:
        told: key to value.
        where: for messages: the file that tells.
        name: of the model, where it tells none.
        graph: name of the graph's file, for the template.

    Raises:
        BadInputError: a key or a value that cannot be, or one that is missing; with a template.
    """
    told = dict(told)
    if "factor" in told or "margin" in told:
        told = _from_evoland(told, where)
    for key, value in told.items():
        if key not in _FITS:
            found = reprlib.repr(key)
            raise BadInputError(f"{where}: found the key {found}, allowed model, {_LIST}")
        fitted = _FITS[key](value)
        if fitted is None:
            found = reprlib.repr(value)
            raise BadInputError(f"{where}: {key}: found {found}, expected {_EXPECTED[key]}")
        told[key] = fitted
    missing = [key for key in ("bands", "gain") if key not in told]
    if missing:
        template = TEMPLATE.replace("net.onnx", graph)
        raise BadInputError(
            f"{where}: {' and '.join(missing)} are not told and cannot be measured; write a YAML "
            f"spec such as {template} and give that file as the model"
        )
    return FileFacts(**{"name": name, **told})


def say_facts(spec: ModelSpec, **more: Any) -> dict[str, Any]:
    """What ``fit_facts`` needs of one of our models, for a graph's metadata."""
    return {
        "name": spec.name,
        "bands": list(spec.bands) if spec.bands else "any",
        "gain": spec.gain,
        "scale": spec.scale,
        "halo": spec.halo,
        "aligned": spec.aligned,
        "multiple": spec.multiple,
        "padding": spec.padding,
        "scene_statistics": spec.scene_statistics,
        "source": spec.source,
    } | {key: value for key, value in more.items() if value is not None}


TEMPLATE = "{model: net.onnx, bands: [B02, B03, B04, B08], gain: 10000, scale: 2, halo: 20}"


def _from_evoland(told: dict[str, Any], where: str) -> dict[str, Any]:
    """The four keys of sentinel2_superresolution as ours; more of ours may stand beside them."""
    factor, margin = told.pop("factor", None), told.pop("margin", None)
    scale, border = _count(factor), _whole(margin)
    if scale is None or border is None:
        raise BadInputError(
            f"{where}: found factor {reprlib.repr(factor)} and margin "
            f"{reprlib.repr(margin)}, expected a whole factor "
            "of 1 or more and a margin in fine pixels"
        )
    # its margin is cut from the result; its reader divides stored numbers by one
    return {"scale": scale, "halo": -(-border // scale), "gain": 1.0} | told


def _number(value: Any) -> float | None:
    there = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if there and math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number < 1e5 and number % 1 == 0 else None


def _count(value: Any) -> int | None:
    return _whole(value) or None


def _above_zero(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _text(value: Any) -> str | None:
    plain = isinstance(value, str) and 0 < len(value) <= 500 and value.isprintable()
    return value if plain else None


def _source(value: Any) -> str | None:
    return "" if value == "" else _text(value)


def _bands(value: Any) -> tuple[str, ...] | Literal["any"] | None:
    if value == "any":
        return "any"
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_BANDS:
        return None
    if not all(_text(band) for band in value) or len(set(value)) < len(value):
        return None
    # B2 is what some call B02
    return tuple(re.sub(r"^B(\d)$", r"B0\1", band) for band in value)


def _each(fit: Callable[[Any], float | None]) -> Callable[[Any], tuple[float, ...] | None]:
    def fit_all(value: Any) -> tuple[float, ...] | None:
        numbers = [fit(v) for v in (value if isinstance(value, list) else [value])]
        return None if None in numbers or not numbers else cast("tuple[float, ...]", tuple(numbers))

    return fit_all


def _one_of(choices: Any) -> Callable[[Any], Any]:
    return lambda value: value if value in get_args(choices) else None


_FITS: Mapping[str, Callable[[Any], Any]] = {
    "name": _text,
    "bands": _bands,
    "gain": _above_zero,
    "scale": _count,
    "halo": _whole,
    "aligned": _one_of(Aligned),
    "multiple": _count,
    "padding": _one_of(Padding),
    "mean": _each(_number),
    "std": _each(_above_zero),
    "layout": _one_of(Layout),
    "scene_statistics": lambda value: value if isinstance(value, bool) else None,
    "source": _source,
    "licence": _text,
    "weights_sha256": _text,
}
_LIST = ", ".join(_FITS)
_EXPECTED = {
    "name": "a short text",
    "bands": "a list of different names such as [B02, B03], in the order of the channels, or any",
    "gain": "DN per unit of the network's input, above 0",
    "scale": "a whole number of 1 or more",
    "halo": "a whole number of pixels",
    "aligned": "corner or centre",
    "multiple": "a whole number of 1 or more",
    "padding": "edge or reflect",
    "mean": "a number, or one for each band, in units of the network's input",
    "std": "a number above 0, or one for each band, in units of the network's input",
    "layout": "channels-first or channels-last",
    "scene_statistics": "true or false",
    "source": "a text",
    "licence": "an SPDX name",
    "weights_sha256": "the hash of the weights it was made of",
}
