"""The network that restored a file, as the STAC extension for machine learning models tells it."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

import l1bsr_geo
from l1bsr_geo.georef.stac_file import multihash
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.checkpoint import find_shipped, read_facts
from l1bsr_geo.models.entries import MODELS, Entry
from l1bsr_geo.models.stored import find_cached, hash_file

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
"""The extension."""

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]")
_SPDX = re.compile(r"[\w\-.+]+")
_ARTIFACTS = {"": "weights", ".safetensors": "safetensors.torch.save_file"}
_ARTIFACTS |= {".onnx": "onnx.save", ".pt2": "torch.export.save"}
_SETTINGS = ("scale", "precision", "tile_size", "tile_halo")


def say_network(
    tags: Mapping[str, str], weights: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Properties of the item, and the asset of the weights; both empty where nothing had learnt.

    Args:
        tags: of a written file: ``model``, ``weights_sha256``, ``scale`` ...
        weights: a file that may be the one; those that ship and those that were fetched are
            looked at anyway.
    """
    name, sha256 = tags.get("model", ""), tags.get("weights_sha256", "")
    if not name or not re.fullmatch("[0-9a-f]{64}", sha256):
        return {}, {}
    entry = MODELS.get(name)
    file = _find_file(name, sha256, tags.get("scale", ""), weights)
    facts = {} if file is None else read_facts(file)
    spec = None if entry is None else _spec_of(entry, file)
    return _say_properties(tags, spec), _say_asset(name, sha256, file, facts, spec)


def _find_file(name: str, sha256: str, scale: str, given: Path | None) -> Path | None:
    """The weights, by their content."""
    scales = [None, int(scale)] if scale.isdigit() else [None]
    shipped = (find_shipped(name, s) for s in scales)
    cached = (find_cached(name, scale=s) for s in scales)
    for path in (given, *shipped, *cached):
        if path is not None and path.is_file() and hash_file(path) == sha256:
            return path
    return None


def _spec_of(entry: Entry, file: Path | None) -> ModelSpec:
    """Of the network in the file, where that is here; of the usual one else."""
    import torch  # most files tell of no network

    if file is None:
        return entry.spec
    with torch.device("meta"):  # costs nothing
        return entry.make_for(file).spec


def _say_properties(tags: Mapping[str, str], spec: ModelSpec | None) -> dict[str, Any]:
    name = tags["model"]
    settings = {key: _number(tags[key]) for key in _SETTINGS if key in tags}
    tasks = ["super-resolution" if tags.get("scale", "1") != "1" else "regression"]
    said: dict[str, Any] = {
        "mlm:name": name if _NAME.fullmatch(name) else f"model {len(name)}",
        "mlm:architecture": (spec and spec.source) or tags.get("model_source") or name,
        "mlm:tasks": tasks,
        "mlm:input": [],
        "mlm:output": [],
        "mlm:pretrained": True,
    }
    if settings:
        said["mlm:hyperparameters"] = settings
    if spec is not None:
        said |= {"mlm:framework": "PyTorch"}
        said |= {"mlm:input": _say_input(spec), "mlm:output": [_say_output(spec, tasks)]}
    return said


def _say_input(spec: ModelSpec) -> list[dict[str, Any]]:
    least, most = spec.frames
    bands, frames = spec.band_count or -1, most if least == most else -1
    views = {
        "name": "views",
        "description": f"DN divided by {spec.gain:g}; the first view is the reference",
        "bands": list(spec.bands or ()),
        "input": _structure([-1, frames, bands, -1, -1], "batch time channel height width"),
        "value_scaling": [{"type": "scale", "value": spec.gain}],
    }
    if not spec.flow:
        return [views]
    flow = {
        "name": "flow",
        "description": "motion of each view to the reference, (dx, dy) in pixels",
        "bands": [],
        "input": _structure(
            [-1, frames, bands, 2, -1, -1], "batch time channel direction height width"
        ),
    }
    return [views, flow]


def _say_output(spec: ModelSpec, tasks: list[str]) -> dict[str, Any]:
    bands = len(spec.result_bands) if spec.result_bands else spec.band_count or -1
    return {
        "name": "image",
        "description": f"DN divided by {spec.gain:g}, {spec.scale} fine pixels to a pixel",
        "tasks": tasks,
        "result": _structure([-1, bands, -1, -1], "batch channel height width"),
    }


def _structure(shape: list[int], order: str) -> dict[str, Any]:
    return {"shape": shape, "dim_order": order.split(), "data_type": "float32"}


def _say_asset(
    name: str, sha256: str, file: Path | None, facts: Mapping[str, str], spec: ModelSpec | None
) -> dict[str, Any]:
    """Weights that ship are named by their package, others by their content (RFC 6920)."""
    digest = base64.urlsafe_b64encode(bytes.fromhex(sha256)).rstrip(b"=").decode()
    asset: dict[str, Any] = {
        "href": f"ni:///sha-256;{digest}",
        "title": f"Weights of {name}" + (f" x{spec.scale}" if spec else ""),
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": _ARTIFACTS.get(file.suffix if file else "", _ARTIFACTS[""]),
        "file:checksum": multihash(sha256),
    }
    if file is None:
        return asset
    asset |= {"file:size": file.stat().st_size, "type": "application/octet-stream"}
    if file.suffix == ".safetensors":
        asset["mlm:total_parameters"] = _count_parameters(file)
    if file in (find_shipped(name), find_shipped(name, spec.scale if spec else None)):
        package = f"pkg:pypi/l1bsr-geo@{l1bsr_geo.__version__}"
        asset["href"] = f"{package}#l1bsr_geo/models/weights/{file.name}"
    told = [facts[key].strip() for key in ("data", "limits") if facts.get(key, "").strip()]
    if told:
        asset["description"] = "\n\n".join(told)
    if licence := facts.get("licence"):
        asset["license"] = licence if _SPDX.fullmatch(licence) else "other"
    return asset


def _count_parameters(file: Path) -> int:
    """From the head of the file."""
    with safetensors.safe_open(file, "np") as tensors:
        shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
    count = 0
    for shape in shapes:
        size = 1
        for n in shape:
            size *= n
        count += size
    return count


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text
