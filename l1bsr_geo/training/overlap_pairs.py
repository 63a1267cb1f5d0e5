"""Pairs of overlapping crops on disk to learn from: the layout of L1BSR's public data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.readers.sentinel2_l1b import DEFAULT_BANDS
from l1bsr_geo.readers.sources import open_source
from l1bsr_geo.training.own_overlaps import OverlapSource, Stacks

NAMES = (("left/{}", "right/{}"), ("0/{}", "1/{}"), ("{}_0", "{}_1"), ("{}_left", "{}_right"))
"""How the two files of a pair are told apart."""

_REFERENCE = "B03"
_NODATA, _SATURATED = 0.0, 65535.0  # of L1B


@dataclass(frozen=True)
class OverlapPairs(OverlapSource):
    """Pairs of overlapping crops of neighbouring detectors: the layout of L1BSR's data.

    Each crop is a TIFF of the four bands B02 B03 B04 B08, DN with zero for no light; 0 is no data,
    65535 saturated. The two of a pair have one size and show the same ground to 10 px or so. They
    are ``left/NAME.tif`` and ``right/NAME.tif`` (or ``0/`` and ``1/``), or ``NAME_0.tif`` and
    ``NAME_1.tif`` (or ``_left``, ``_right``) in one folder. (How the authors name theirs is not
    known here.)

    Attributes:
        folder: of the crops, or of the folders ``left`` and ``right``.
        size: [px] of the crops drawn.
        turned: whether samples are turned and mirrored by chance.

    Source: Nguyen et al., L1BSR, CVPRW EarthVision 2023, Zenodo 7826696.
    """

    folder: str | Path
    size: int = 96
    turned: bool = True

    def __post_init__(self) -> None:
        _ = self.overlaps

    @cached_property
    def overlaps(self) -> Mapping[str, Callable[[], Stacks]]:
        """All pairs, unread.

        Raises:
            MissingInputError: there are none, or one has lost its partner.
            BadInputError: a file is no crop of four bands, or the two of a pair differ in size.
        """
        found = {}
        for one, two in _find_pairs(Path(self.folder)):
            shapes = [_shape_of(path, self.size) for path in (one, two)]
            if shapes[0] != shapes[1]:
                raise BadInputError(
                    f"{one} has {shapes[0][0]} x {shapes[0][1]} pixels and its partner {two.name} "
                    f"{shapes[1][0]} x {shapes[1][1]}; crops of the same ground and size were "
                    "expected"
                )
            found[str(one)] = partial(_open_pair, one, two)
        return found


def _find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    if not folder.is_dir():
        raise MissingInputError(f"{folder} is no folder; pairs of overlapping crops were expected")
    pairs = []
    for one, two in NAMES:
        for path in sorted(folder.glob(one.format("*") + ".tif*")):
            name = path.stem if "/" in one else path.stem.removesuffix(one.format(""))
            partner = folder / (two.format(name) + path.suffix)
            if not partner.is_file():
                raise MissingInputError(
                    f"{path} has no partner {partner}; the other detector's crop was expected there"
                )
            pairs.append((path, partner))
    if not pairs:
        raise MissingInputError(
            f"{folder} holds no pairs of overlapping crops; left/NAME.tif and right/NAME.tif, or "
            "NAME_0.tif and NAME_1.tif, were expected"
        )
    return pairs


def _shape_of(path: Path, size: int) -> tuple[int, int]:
    open_source(str(path))
    with open_raster(path) as raster:
        bands, shape = raster.count, (int(raster.height), int(raster.width))
    if bands != len(DEFAULT_BANDS) or min(shape) < size:
        raise BadInputError(
            f"{path} has {bands} bands of {shape[0]} x {shape[1]}; {', '.join(DEFAULT_BANDS)} of "
            f"at least {size} x {size} pixels were expected"
        )
    return shape


def _open_pair(one: Path, two: Path) -> Stacks:
    first, other = (
        {band: open_source(str(path), i) for i, band in enumerate(DEFAULT_BANDS, 1)}
        for path in (one, two)
    )
    grids = {band: GeoGrid(source.shape) for band, source in first.items()}
    stack = BandStack(first, grids, _REFERENCE, nodata=_NODATA, saturated=_SATURATED)
    return stack, replace(stack, sources=other)
