"""Real overlaps of Sentinel-2 detectors to learn from, among them the user's own products.

The motion of all bands of both views to B03 of the first comes from registration, once for each
overlap. The bands of the other detector are matched to the same bands of the first, which is more
exact than between spectral bands, and go from there to B03. Truth is not known.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, L1bsrGeoWarning, MissingInputError
from l1bsr_geo.geometry.elevation import Elevation
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bands import BandScene, BandStack, DetectorOverlap
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.readers.sentinel2_l1b import read_detector_overlap
from l1bsr_geo.readers.sentinel2_product import Product, open_product
from l1bsr_geo.readers.sentinel2_zarr import eopf_detectors, is_eopf
from l1bsr_geo.registration.bands import geometric_flow, register_bands
from l1bsr_geo.training.crops import augment
from l1bsr_geo.training.objective import Batch

F32 = npt.NDArray[np.float32]
Stacks: TypeAlias = tuple[BandStack, BandStack]
"""The same ground in two detectors: bands of one shape, the first detector first."""

_SEARCH = 12  # [px] from where geometry foretells a band: 1000 m of relief are some 3
_HELD = 256 << 20  # bytes of pixels kept decoded


@dataclass(frozen=True)
class HeldPixels:
    """Pixels of a band in memory, a `PixelSource`."""

    pixels: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        rows, columns = self.pixels.shape
        return rows, columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        return self.pixels.dtype

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window inside the band."""
        return self.pixels[window.slices]


@dataclass(frozen=True, eq=False)
class Overlap:
    """The same ground in two detectors, its pixels in memory.

    Attributes:
        views: the bands of either detector.
        places: flat index ``top * columns + left`` of every crop that has data in all bands of the
            first view, where there are ``columns`` places in a row.
        columns: places in a row.
    """

    views: tuple[BandScene, BandScene]
    places: npt.NDArray[np.intp]
    columns: int

    @classmethod
    def load(cls, stacks: Stacks, size: int) -> "Overlap":
        """Read all pixels, and find where crops of ``size`` can be taken."""
        first, other = (BandScene(_hold(stack)) for stack in stacks)
        known = first.read(first.grid.window).valid.all((0, 1))
        # gaps above and left of a corner; four corners tell those of a crop
        gaps: npt.NDArray[np.intp] = np.pad((~known).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        strips: npt.NDArray[np.intp] = gaps[size:] - gaps[:-size]
        inside: npt.NDArray[np.intp] = strips[:, size:] - strips[:, :-size]
        return cls((first, other), np.flatnonzero(inside == 0), max(inside.shape[1], 1))

    @property
    def size(self) -> int:
        """Bytes in memory."""
        sources = [s for view in self.views for s in view.stack.sources.values()]
        pixels = (s.shape[0] * s.shape[1] * s.dtype.itemsize for s in sources)
        return self.places.nbytes + sum(pixels)


def register_overlap(stacks: Stacks, elevation: Elevation | None = None) -> FlowField:
    """The motion of all bands of two detectors to the reference band of the first.

    Args:
        stacks: both with the same bands, all of one shape.
        elevation: of the ground, where the stacks have geometry; height 0 by default.

    Returns:
        Flow of 2 C bands, those of the first detector first.

    Raises:
        BadInputError: a band could not be matched.

    Warns:
        L1bsrGeoWarning: the same, of each such band.
    """
    first, other = stacks
    own, unseen = _register(first, elevation)
    across = []
    for band in first.bands:
        again = f"{band} of the other detector"
        sources = {band: first.sources[band], again: other.sources[band]}
        grids = {band: first.grids[band], again: other.grids[band]}
        flow, missed = _register(replace(first.only(band), sources=sources, grids=grids), elevation)
        across.append(flow)
        unseen += missed
    if unseen:
        raise BadInputError(f"{', '.join(unseen)} could not be matched")
    onward = [_follow(nodes, flow) for nodes, flow in zip(own.nodes, across, strict=True)]
    return replace(own, nodes=np.concatenate([own.nodes, np.stack(onward)]))


class OverlapSource:
    """What draws samples from overlaps, which are read and registered when first drawn from."""

    size: int
    turned: bool
    elevation: Elevation | None = None

    @cached_property
    def overlaps(self) -> Mapping[str, Callable[[], Stacks]]:
        """What opens each overlap, by name."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples: views (B, 2, 4, H, W), NaN without data, and their flow; see `Source`.

        Raises:
            BadInputError: a file is damaged, or no overlap shows a whole crop.
        """
        samples = [self._sample(rng) for _ in range(count)]
        views, flow = (torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True))
        batch = Batch(views, flow)
        return augment(batch, rng, aligned="corner") if self.turned else batch

    def _sample(self, rng: np.random.Generator) -> tuple[F32, F32]:
        names = list(self.overlaps)
        for k in rng.permutation(len(names)):
            overlap = self._load(names[k])
            flow = self._flow(names[k]) if overlap.places.size else None
            if flow is None:
                continue
            top, left = divmod(int(rng.choice(overlap.places)), overlap.columns)
            window = Window(left, top, self.size, self.size)
            read = [view.read(window) for view in overlap.views]
            pixels = [np.where(r.valid, r.pixels, np.float32(np.nan))[0] for r in read]
            bands = pixels[0].shape[0]
            return np.stack(pixels), flow.read(window).reshape(2, bands, 2, self.size, self.size)
        raise BadInputError(
            f"{names[0]} and {len(names) - 1} more overlaps show no {self.size} x {self.size} "
            "pixels without a gap; ask for smaller crops"
        )

    def _flow(self, name: str) -> FlowField | None:
        """Kept for all overlaps: it is small."""
        if name not in self._flows:
            first, other = self._load(name).views
            try:
                self._flows[name] = register_overlap((first.stack, other.stack), self.elevation)
            except BadInputError as error:  # cloud or sea is no reason to end a training
                warnings.warn(f"{name} is left out: {error}", L1bsrGeoWarning, stacklevel=2)
                self._flows[name] = None
        return self._flows[name]

    def _load(self, name: str) -> Overlap:
        if name not in self._held:
            self._held[name] = Overlap.load(self.overlaps[name](), self.size)
        self._held.move_to_end(name)
        while len(self._held) > 1 and sum(o.size for o in self._held.values()) > _HELD:
            self._held.popitem(last=False)
        return self._held[name]

    @cached_property
    def _flows(self) -> dict[str, FlowField | None]:
        return {}

    @cached_property
    def _held(self) -> OrderedDict[str, Overlap]:
        return OrderedDict()


@dataclass(frozen=True)
class OwnOverlaps(OverlapSource):
    """Where neighbouring detectors of Sentinel-2 L1B products see the same ground.

    Attributes:
        product: a path as for `read_detector_overlap`, or several.
        size: [px] of the crops; overlaps are 120 to 180 wide.
        detectors: which, 1 to 12; all there are by default.
        turned: whether samples are turned and mirrored by chance.
        elevation: of the ground; height 0 by default, and the images correct it by up to 12 px.
        options: others of `read_detector_overlap` (geometry, gipp, lines, margin).
    """

    product: str | Path | Sequence[str | Path]
    size: int = 96
    detectors: Sequence[int] | None = None
    turned: bool = True
    elevation: Elevation | None = field(default=None, compare=False)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.overlaps:
            raise BadInputError(
                f"{self.product} has no two neighbouring detectors such as 4 and 5 with ground in "
                "common; overlaps are learnt from those"
            )

    @cached_property
    def overlaps(self) -> Mapping[str, Callable[[], Stacks]]:
        """All overlaps, unread.

        Raises:
            MissingInputError: there is no product, or not a band of it.
            BadInputError: a product cannot be read.
        """
        several = [self.product] if isinstance(self.product, str | Path) else self.product
        return {name: partial(_stacks_of, o) for p in several for name, o in self._index(p)}

    def _index(self, path: str | Path) -> Iterator[tuple[str, DetectorOverlap]]:
        product: str | Path | Product = path
        if is_eopf(path):
            there = eopf_detectors(path)
        else:
            product = open_product(path)
            there = product.detectors
        chosen = there if self.detectors is None else tuple(self.detectors)
        if missing := sorted(set(chosen) - set(there)):
            raise MissingInputError(f"{path} has detectors {there}, not {missing}; choose of those")
        for left in sorted(chosen):
            if left + 1 in chosen:
                overlap = read_detector_overlap(product, left, left + 1, **self.options)
                yield f"{path}, detectors {left} and {left + 1}", overlap


def _register(stack: BandStack, elevation: Elevation | None) -> tuple[FlowField, list[str]]:
    """The flow, and the bands that could not be matched."""
    prior = None
    if all(grid.model is not None for grid in stack.grids.values()):
        prior = geometric_flow(stack, elevation=elevation)
    flow = register_bands(stack, prior=prior, search=_SEARCH)
    start = np.zeros_like(flow.nodes) if prior is None else prior.nodes
    same = [np.array_equal(a, b) for a, b in zip(flow.nodes, start, strict=True)]
    bands = zip(stack.bands, same, strict=True)
    return flow, [b for b, unmoved in bands if unmoved and b != stack.reference]


def _follow(first: F32, then: FlowField) -> F32:
    """Two motions one after the other, at the nodes of the first, (2, rows, columns)."""
    rows, columns = np.indices(first.shape[1:], np.float32)
    at = np.stack([rows + first[1] / then.step, columns + first[0] / then.step])
    moved = [ndimage.map_coordinates(v, at, np.float32, 1, "nearest") for v in then.nodes[1]]
    return np.asarray(first + np.stack(moved), np.float32)


def _hold(stack: BandStack) -> BandStack:
    window = stack.grids[stack.reference].window
    return replace(stack, sources={b: HeldPixels(s.read(window)) for b, s in stack.sources.items()})


def _stacks_of(overlap: DetectorOverlap) -> Stacks:
    return overlap.left, overlap.right
