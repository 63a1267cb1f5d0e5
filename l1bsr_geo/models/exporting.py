"""Our networks as files for others: ONNX, and programs of ``torch.export``.

A file takes and gives what ``SingleImage`` does, an image (B, C, H, W) [DN / gain], any batch,
height and width, and holds our spec in its metadata, so that it can be used here again without one.
A network that pools over the scene has a second input and output; see ``PoolingGraphRestorer``.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from l1bsr_geo.errors import BadOptionError, OutputExistsError
from l1bsr_geo.models.base import ModelSpec, Restorer
from l1bsr_geo.models.checkpoint import find_weights, read_provenance
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.file_facts import METADATA, SUFFIXES, say_facts
from l1bsr_geo.models.onnx_file import require_onnx
from l1bsr_geo.models.rcan import REC, PoolingREC
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.stored import hash_file

CLOSE_DN = 0.05
"""[DN] how far a file's result may be from the network's, on random pixels of 0 to 1000 DN."""

_OPSET = 17
_SIZES = ((1, 40, 56), (2, 64, 48))  # batch, height, width [px] that a file is tried on


def export_model(
    name: str,
    path: str | Path,
    *,
    weights: str | Path | None = None,
    scale: int | None = None,
    overwrite: bool = False,
) -> float:
    """Write a model as a file, which is then read again and compared.

    Args:
        name: in ``MODELS``.
        path: to write, ending in .onnx or .pt2.
        weights: as for `Model`.
        scale: as for `Model`.
        overwrite: replace an existing file.

    Returns:
        The largest difference between both, on random pixels of 0 to 1000 DN in two sizes [DN].

    Raises:
        BadOptionError: the model is no network of single images, the ending is another, or the
            package onnx is missing.
        OutputExistsError: the file is there.
        L1bsrGeoError: as `Model`; nothing is left under ``path``.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise BadOptionError(f"{path}: a model is written to a file ending in {_OR}")
    if path.suffix.lower() == ".onnx":
        require_onnx()
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give another name, or --overwrite")
    if not path.absolute().parent.is_dir():
        raise BadOptionError(f"{path}: there is no folder {path.absolute().parent}")
    with torch.device("meta"):  # costs nothing
        _refuse_unfit(find_entry(name).make(scale), name)
    model = Model(name, weights=weights, scale=scale, device="cpu", precision="fp32")
    network, facts = _load(name, weights, scale)
    begun = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with _quietly():
            write = _write_onnx if path.suffix.lower() == ".onnx" else _write_program
            write(network, model.spec, json.dumps(facts), begun)
        difference = _compare(model, begun)
        begun.replace(path)
    finally:
        begun.unlink(missing_ok=True)
    return difference


_OR = " or ".join(SUFFIXES)


def _load(name: str, weights: str | Path | None, scale: int | None) -> tuple[nn.Module, Any]:
    """The network as a graph of images, and what is told of it."""
    entry = find_entry(name)
    found = find_weights(name, weights, entry.weights, entry.unusual(scale))
    restorer = cast("nn.Module", entry.load(found, scale)).eval().requires_grad_(False)
    licence = read_provenance(found, entry.weights).get("licence")
    facts = say_facts(cast("Restorer", restorer).spec, licence=licence)
    facts |= {"weights_sha256": hash_file(found)}
    return PoolingREC(restorer) if isinstance(restorer, REC) else _OfImages(restorer), facts


def _refuse_unfit(restorer: Restorer, name: str) -> None:
    spec = restorer.spec
    if not isinstance(restorer, nn.Module):
        raise BadOptionError(f"{name} is no network; there is nothing to export")
    why = None
    if spec.flow or spec.exposures or spec.frames != (1, 1):
        why = "it takes several frames or their motion, in loops over frames and rows of pixels"
    elif getattr(restorer, "full_precision", False):
        why = "it looks for motion, in loops over rows of pixels"
    if why is not None:
        raise BadOptionError(
            f"{name} cannot be exported: {why}, which a graph of any size cannot hold; networks of "
            "single images can be: dncnn, dncnn-pan, l1bsr-rcan"
        )


class _OfImages(nn.Module):
    """A restorer of single frames as a function of images."""

    def __init__(self, restorer: nn.Module) -> None:
        super().__init__()
        self.restorer = restorer

    def forward(self, image: Tensor) -> Tensor:
        return cast("Tensor", self.restorer(image[:, None]))


def _example(network: nn.Module, spec: ModelSpec) -> tuple[Tensor, ...]:
    """What a network is traced with; several bands where any number will do."""
    size = -(-24 // spec.multiple) * spec.multiple
    image = torch.rand(2, spec.band_count or 3, size, size + spec.multiple)
    if isinstance(network, PoolingREC):
        return image, torch.full(network.rec.layers, torch.nan)
    return (image,)


def _write_onnx(network: nn.Module, spec: ModelSpec, facts: str, path: Path) -> None:
    import onnx

    example = _example(network, spec)
    free = {0: "batch", 2: "height", 3: "width"}
    fine = {0: "batch", 2: "fine_height", 3: "fine_width"}
    if spec.band_count is None:
        free, fine = free | {1: "bands"}, fine | {1: "bands"}
    torch.onnx.export(
        network,
        example,
        str(path),
        dynamo=False,  # the other one needs onnxscript, and does no better with convolutions
        opset_version=_OPSET,
        input_names=["input", "statistics"][: len(example)],
        output_names=["output", "pooled"][: len(example)],
        dynamic_axes={"input": free, "output": fine},
    )
    model = onnx.load(str(path))
    model.metadata_props.add(key=METADATA, value=facts)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _write_program(network: nn.Module, spec: ModelSpec, facts: str, path: Path) -> None:
    example = _example(network, spec)
    any_length = torch.export.Dim.DYNAMIC
    free = dict.fromkeys((0, 2, 3) if spec.band_count else (0, 1, 2, 3), any_length)
    shapes: tuple[Any, ...] = (free, {})[: len(example)]
    program = torch.export.export(network, example, dynamic_shapes=shapes)
    torch.export.save(program, str(path), extra_files={f"{METADATA}.json": facts})


@contextmanager
def _quietly() -> Iterator[None]:
    """What exporters print and warn of is for those who write networks."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield


def _compare(model: Model, path: Path) -> float:
    """The largest difference between a network and its file [DN]."""
    written = Model.from_file(path, device="cpu")
    random = np.random.default_rng(0)
    worst = 0.0
    for batch, height, width in _SIZES:
        bands = model.spec.band_count or batch
        views = random.uniform(0, 1000, (batch, 1, bands, height, width)).astype(np.float32)
        pair = model.restore(views), written.restore(views)
        worst = max(worst, float(np.abs(np.subtract(*pair)).max()))
    if worst > CLOSE_DN:
        raise BadOptionError(
            f"{model.spec.name} cannot be exported: its file gives other pixels (by {worst:.3g} "
            "DN), because it decides by what it sees or by the size of an image"
        )
    return worst
