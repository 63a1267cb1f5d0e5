"""A training as a file: which method, which network, from what, how long.

    method: dsa
    network: {scale: 2, width: 32}
    objective: {held_out: 1}
    data: {kind: simulated-bursts, images: ["city/*.jpg"], count: 256}
    validation: {kind: simulated-bursts, images: ["park/*.jpg"], count: 16, batch: 4, seed: 7}
    schedule: {iterations: 20000, batch: 16, lr: 0.0003}
    start: dsa.safetensors

Paths of samples start at the folder of data; a start lies beside the recipe. It may also be of
parts, such as ``start: {fnet: fnet.safetensors}``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.training.arguments import check_names, fit_arguments, fit_value
from l1bsr_geo.training.methods import find_method, takes
from l1bsr_geo.training.schedule import Schedule

_KEYS = ("method", "model", "network", "objective", "data", "validation", "schedule", "start")
_NEEDED = ("data", "schedule")


@dataclass(frozen=True)
class Samples:
    """Where samples come from: a kind of source and its options, as YAML gives them."""

    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Validation:
    """What is scored.

    Attributes:
        samples: where they come from.
        count: how many.
        batch: how many at a time.
    """

    samples: Samples
    count: int
    batch: int


@dataclass(frozen=True)
class Recipe:
    """A training, as its file says it; what is in the mappings is checked where it is used.

    Attributes:
        path: the file.
        root: where relative paths of samples start.
        method: name.
        model: name of the model that is trained; the method's own by default.
        network: scale and architecture.
        objective: options of the objective.
        data: what is learnt from.
        validation: what is scored; None for nothing, and then the newest weights are the best.
        schedule: numbers of the loop.
        start: weights to start from, by the part of the network that they are of; "" is all.
        text: all that decides the result, as written, but for the schedule.
    """

    path: Path
    root: Path
    method: str
    model: str
    network: Mapping[str, Any]
    objective: Mapping[str, Any]
    data: Samples
    validation: Validation | None
    schedule: Schedule
    start: Mapping[str, Path]
    text: Mapping[str, Any]

    def where(self, key: str) -> str:
        """The place of a key, for messages."""
        return f"{self.path.name}: {key}"

    def override(self, *, iterations: int | None = None, start: Path | None = None) -> "Recipe":
        """The same with another length, or another start."""
        recipe = self
        if iterations is not None:
            recipe = replace(recipe, schedule=replace(self.schedule, iterations=iterations))
        if start is not None:
            text = {**self.text, "start": start.name}
            recipe = replace(recipe, start={"": start}, text=text)
        return recipe


def read_recipe(path: Path, *, method: str | None = None, root: Path | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file; see the module.
        method: where the recipe names none; else the two must agree.
        root: where relative paths of samples start; the recipe's folder where None.

    Raises:
        MissingInputError: there is no such file or folder.
        BadInputError: it is not YAML.
        BadOptionError: a key or a value that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"{path}: there is no such recipe")
    if root is not None and not root.is_dir():
        raise MissingInputError(f"{root}: there is no such folder of data")
    root = path.parent if root is None else root
    told = _read_yaml(path)
    check_names(told, _KEYS, path.name)
    for key in _NEEDED:
        if key not in told:
            raise BadOptionError(f"{path.name}: {key} is not given; it is needed")

    def take(key: str, hint: Any, default: Any = None, folder: Path = root) -> Any:
        where = f"{path.name}: {key}"
        return fit_value(told[key], hint, where, folder) if key in told else default

    name = take("method", str, method)
    if name is None or (method is not None and name != method):
        raise BadOptionError(f"{path.name}: method: found {name}, {method or 'one'} is asked for")
    known = find_method(name)
    schedule = fit_arguments(Schedule, take("schedule", dict), f"{path.name}: schedule", root)
    samples = take("validation", dict)
    start = take("start", Path | Mapping[str, Path], {}, path.parent)
    return Recipe(
        path=path,
        root=root,
        method=name,
        model=take("model", str, known.model),
        network=take("network", dict, {}),
        objective=take("objective", dict, {}),
        data=_read_samples(take("data", dict), known.sources, f"{path.name}: data"),
        validation=None
        if samples is None
        else _read_validation(samples, known.sources, f"{path.name}: validation"),
        schedule=Schedule(**schedule),
        start={"": start} if isinstance(start, Path) else start,
        text={k: v for k, v in told.items() if k != "schedule"} | {"method": name},
    )


def _read_samples(told: Mapping[str, Any], kinds: tuple[str, ...], where: str) -> Samples:
    options = dict(told)
    kind = options.pop("kind", None)
    if kind not in kinds:
        raise BadOptionError(f"{where}.kind: found {kind!r}, allowed {', '.join(kinds)}")
    return Samples(kind, options)


def _read_validation(told: Mapping[str, Any], kinds: tuple[str, ...], where: str) -> Validation:
    """Count is of samples; a source that keeps a pool has as many, where `samples` is not given."""
    samples = _read_samples(told, kinds, where)
    options = dict(samples.options)
    count = options.get("samples", options.get("count", 16))
    batch = options.pop("batch", 4)
    options.pop("samples", None)
    if not takes(samples.kind, "count"):
        options.pop("count", None)
    for name, value in (("count", count), ("batch", batch)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadOptionError(f"{where}.{name}: found {value!r}, allowed 1 or more")
    return Validation(Samples(samples.kind, options), count, batch)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        told = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(f"{path}: not YAML: {error}") from error
    if not isinstance(told, dict) or not all(isinstance(key, str) for key in told):
        raise BadInputError(f"{path}: not a recipe: expected names with values, found {told!r:.60}")
    return told
