"""A model as a file of one's own: an ONNX graph, a program of ``torch.export``, or a YAML spec.

Whatever is not told of it is measured (scale, halo), and what is told is checked on random pixels
before any work: a graph that gives another shape, no numbers, or looks farther than it says is
refused.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError, WeightsError
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.exported import ExportedGraph
from l1bsr_geo.models.file_facts import (
    SPEC_SUFFIXES,
    SUFFIXES,
    FileFacts,
    fit_facts,
    parse_metadata,
    read_spec,
)
from l1bsr_geo.models.graph_restorer import GraphRestorer, PoolingGraphRestorer
from l1bsr_geo.models.graphs import Graph, GraphError
from l1bsr_geo.models.onnx_file import OnnxGraph
from l1bsr_geo.models.receptive_field import probe_halo

_LIMITS = (24, 64, 160)  # [px] how far is looked for what nobody tells
_EXACT = 0.01  # [DN] of an impulse of 1000 DN: what is not context any more, where it is measured
_TRIAL = (37, 43)  # [px] height and width of the pixels that it is tried on
_CORE, _BEYOND = 8, 32  # [px] pixels that must not depend on what is beyond their halo
_TOLERANCE = 0.5  # [DN] of an impulse of 1000 DN: what tiles may differ by


def is_model_file(word: str) -> bool:
    """Whether a word names a file of a model, there or not; models by name have no such ending."""
    return word.lower().endswith((*SUFFIXES, *SPEC_SUFFIXES))


@dataclass(frozen=True)
class ModelFile:
    """A model of one's own, as it travels: a few bytes.

    Attributes:
        path: of the graph, absolute.
        sha256: of its content.
        facts: what was told of it.
        spec: what the rest of the package must know, complete.
    """

    path: Path
    sha256: str
    facts: FileFacts
    spec: ModelSpec

    @classmethod
    def read(cls, path: str | Path, device: torch.device) -> "ModelFile":
        """A file as it is now; what is not told is measured, and what is told is checked.

        Args:
            path: ending in .onnx, .pt2, .yaml or .yml.
            device: where it is tried.

        Raises:
            MissingInputError: there is no such file.
            BadInputError: it cannot be run, or is not what it says.
            BadOptionError: onnxruntime is not installed.
        """
        spec_path, told, graph_path = Path(path), None, Path(path)
        if graph_path.suffix.lower() in SPEC_SUFFIXES:
            graph_path, told = read_spec(spec_path)
        content = _read(graph_path)
        graph = _open(content, graph_path, device)
        where = str(spec_path)
        if told is None:
            told = parse_metadata(graph.metadata, where) if graph.metadata else {}
        facts = fit_facts(told, where, spec_path.stem, graph_path.name)
        spec = _complete(graph, facts, where, device)
        return cls(graph_path.absolute(), hashlib.sha256(content).hexdigest(), facts, spec)

    def load(self, device: torch.device) -> GraphRestorer:
        """What restores, on a device.

        Raises:
            MissingInputError: the file is not there, on this machine.
            WeightsError: it changed.
        """
        content = _read(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise WeightsError(f"{self.path}: changed since the model was made of it")
        return _restorer(_open(content, self.path, device), self.facts, self.spec)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise MissingInputError(f"{path}: there is no such file of a model here")
    if path.suffix.lower() not in SUFFIXES:
        raise BadOptionError(f"{path}: is no file of a model; it ends in {', '.join(SUFFIXES)}")
    return path.read_bytes()


def _open(content: bytes, path: Path, device: torch.device) -> Graph:
    if path.suffix.lower() == ".onnx":
        return OnnxGraph(content, str(path), device)
    return ExportedGraph(content, str(path), device)


def _restorer(graph: Graph, facts: FileFacts, spec: ModelSpec) -> GraphRestorer:
    kind = PoolingGraphRestorer if spec.scene_statistics else GraphRestorer
    return kind(graph, spec, mean=facts.mean, std=facts.std, layout=facts.layout)


def _complete(graph: Graph, facts: FileFacts, where: str, device: torch.device) -> ModelSpec:
    """The spec of a graph: what is told, and what its shapes and its answers tell."""
    channels = _count_channels(graph, facts, where)
    spec = ModelSpec(
        name=facts.name,
        bands=None if facts.bands == "any" else facts.bands,
        channels=channels if facts.bands == "any" else None,
        scale=facts.scale or 1,
        aligned=facts.aligned,
        halo=facts.halo or 0,
        gain=facts.gain,
        multiple=facts.multiple,
        padding=facts.padding,
        scene_statistics=facts.scene_statistics,
        source=facts.source,
    )
    try:
        spec = replace(spec, scale=_measure_scale(graph, facts, spec, where, device))
        spec = _measure_halo(graph, facts, spec, where, device)
        _refuse_pooling(_restorer(graph, facts, spec), where, device)
        return spec
    except GraphError as error:
        raise BadInputError(
            f"{where}: fails on random pixels: {error}; if it needs heights and widths that are "
            "multiples of a number, tell multiple"
        ) from None


def _count_channels(graph: Graph, facts: FileFacts, where: str) -> int | None:
    """How many channels it takes; None where any number will do."""
    expected = 2 if facts.scene_statistics else 1
    if len(graph.inputs) != expected:
        names = ", ".join(i.name for i in graph.inputs)
        raise BadInputError(
            f"{where}: takes {len(graph.inputs)} inputs ({names[:200]}), expected {expected}"
        )
    image = graph.inputs[0]
    if len(image.shape) != 4:
        raise BadInputError(
            f"{where}: its input {image.name[:100]} has {len(image.shape)} axes, expected 4: "
            "batch, channels, height, width"
        )
    if image.kind != "float32":
        raise BadInputError(
            f"{where}: its input {image.name[:100]} is of {image.kind}, expected float32; export "
            "it in float32"
        )
    channels = image.shape[1 if facts.layout == "channels-first" else 3]
    if facts.bands != "any" and channels not in (None, len(facts.bands)):
        raise BadInputError(
            f"{where}: takes {channels} channels, but {len(facts.bands)} bands are told "
            f"({', '.join(facts.bands)}); if its channels are last, tell layout: channels-last"
        )
    for key in ("mean", "std"):
        count = len(getattr(facts, key))
        if count not in (1, channels or count):
            raise BadInputError(f"{where}: {key} has {count} numbers for {channels} channels")
    return channels


def _measure_scale(
    graph: Graph, facts: FileFacts, spec: ModelSpec, where: str, device: torch.device
) -> int:
    """Fine pixels to a pixel, as it answers; refused where it is told otherwise."""
    restorer = _restorer(graph, facts, spec)
    fixed = zip(restorer.fixed, _TRIAL, strict=True)
    height, width = (n or -(-m // spec.multiple) * spec.multiple for n, m in fixed)
    image = torch.rand(1, spec.band_count or 2, height, width, device=device) * 1000 / spec.gain
    result = restorer.call(image)
    scale = facts.scale or max(1, result.shape[-1] // width)
    expected = (1, image.shape[1], scale * height, scale * width)
    if tuple(result.shape) != expected:
        told = f"scale {facts.scale}" if facts.scale else "a whole scale"
        raise BadInputError(
            f"{where}: made {tuple(result.shape)} of {tuple(image.shape)}, expected {expected} "
            f"at {told}, as many bands as it takes; mend its spec, or the graph"
        )
    if not bool(result.isfinite().all()):
        raise BadInputError(
            f"{where}: gave values that are not finite for random pixels of 0 to 1000 DN; check "
            "gain, mean and std, or its weights"
        )
    return scale


def _measure_halo(
    graph: Graph, facts: FileFacts, spec: ModelSpec, where: str, device: torch.device
) -> ModelSpec:
    """With the context that it needs; refused where less of it is told."""
    fixed = [n for n in _restorer(graph, facts, spec).fixed if n is not None]
    most = (min(fixed) - 1) // 2 if fixed else None
    for limit in (facts.halo + 8,) if facts.halo is not None else _LIMITS:
        limit = limit if most is None else min(limit, most)
        bare = _restorer(graph, facts, replace(spec, halo=0))
        tolerance = _EXACT if facts.halo is None else _TOLERANCE
        radius = probe_halo(bare, limit=limit, tolerance=tolerance, device=device, bands=2)
        if radius < limit:
            break
    if facts.halo is not None and radius > facts.halo:
        raise BadInputError(
            f"{where}: looks {radius} px around a pixel or farther, but halo is {facts.halo}: "
            "tiles would not meet; tell a larger halo"
        )
    if radius >= limit and facts.halo is None:
        raise BadInputError(
            f"{where}: looks {radius} px around a pixel or farther; tell its halo, or, if it pools "
            "over the whole image, take it out: tiles could not meet"
        )
    halo = radius if facts.halo is None else facts.halo
    if fixed and min(fixed) - 2 * halo < spec.multiple:
        raise BadInputError(
            f"{where}: takes {' x '.join(map(str, fixed))} px and no other, of which a halo of "
            f"{halo} px leaves nothing; export it with dynamic height and width, or larger"
        )
    return replace(spec, halo=halo)


def _refuse_pooling(restorer: GraphRestorer, where: str, device: torch.device) -> None:
    """A mean over the whole image hardly notes one pixel, but it notes where it is cut.

    What is beyond the halo of a few pixels is made brighter by 1000 DN.
    """
    spec = restorer.spec
    if spec.scene_statistics or None not in restorer.fixed:
        return
    multiple = spec.multiple
    start = -(-(spec.halo + _BEYOND) // multiple) * multiple
    side = -(-(2 * start + _CORE) // multiple) * multiple
    height, width = (n or side for n in restorer.fixed)
    image = torch.rand(1, 1, spec.band_count or 2, height, width, device=device) * 1000 / spec.gain
    brighter = image + 1000 / spec.gain
    near = slice(start - spec.halo, start + _CORE + spec.halo)
    brighter[..., near, near] = image[..., near, near]
    core = slice(spec.scale * start, spec.scale * (start + _CORE))
    change = (restorer(brighter) - restorer(image))[..., core, core].abs().max() * spec.gain
    if float(change) > _TOLERANCE:
        raise BadInputError(
            f"{where}: what is more than {spec.halo} px away changes its result, by {change:.3g} "
            "DN where that is brighter by 1000 DN: it pools over the whole image, or looks "
            "farther; take the pooling out, or tell a larger halo: tiles would not meet"
        )
