"""How bands lie on the reference band, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1bsr_geo.registration.phase import band_pass, correlate_blocks, orientation
from l1bsr_geo.report.correspondence import Correspondence, pixel_centres
from l1bsr_geo.report.patches import Patch

F64 = npt.NDArray[np.float64]

_BLOCK = 64  # [px of the input]
_SEARCH = 4  # [px]
_SIGNIFICANT = 8.0  # noise reaches 5


@dataclass(frozen=True)
class BandShifts:
    """Displacements of one band against the reference, block by block.

    Attributes:
        band: name.
        place: (N, 2) x, y of the blocks [px of the input].
        before: (N, 2) dx, dy in the input [px of it].
        after: (N, 2) dx, dy in the result [px of the input].
    """

    band: str
    place: tuple[tuple[float, float], ...]
    before: tuple[tuple[float, float], ...]
    after: tuple[tuple[float, float], ...]

    @property
    def median_before(self) -> float:
        """Median length [px]."""
        return float(np.median(np.hypot(*np.transpose(self.before))))

    @property
    def middle_after(self) -> tuple[float, float]:
        """Median dx, dy over blocks [px]."""
        dx, dy = np.median(self.after, 0)
        return float(dx), float(dy)

    @property
    def error_after(self) -> float:
        """Standard error of the length of `middle_after` [px], from the spread of blocks."""
        apart = np.subtract(self.after, self.middle_after)
        spread = 1.4826 * np.median(np.abs(apart), 0)
        return float(1.2533 * np.hypot(*spread) / np.sqrt(len(self.after)))

    @property
    def median_after(self) -> float:
        """Median length [px]; of well-registered bands the noise of matching."""
        return float(np.median(np.hypot(*np.transpose(self.after))))


def measure_band_shifts(pair: Correspondence, patches: Sequence[Patch]) -> tuple[BandShifts, ...]:
    """Match every band with the reference band, in the input and in the result.

    Blocks that show nothing to match are left out, and so is a band without any.

    Args:
        pair: the two images.
        patches: windows of both.
    """
    bands, reference = pair.bands, pair.stack.reference
    if reference not in bands or len(bands) < 2:
        return ()
    found: dict[str, list[tuple[F64, F64, F64]]] = {b: [] for b in bands if b != reference}
    at = bands.index(reference)
    for patch in patches:
        x, y = pixel_centres(patch.window)
        look, every = patch.look, range(len(bands))
        fine = np.stack([look.sample(look.smooth(1.0, b), x, y) for b in every])
        before, after = _features(patch.source), _features(fine)
        for b, band in enumerate(bands):
            if b != at:
                moved = np.stack([x, y]) - patch.places[b]
                found[band] += _match(patch, before, after, at, b, moved)
    return tuple(
        BandShifts(band, *(tuple((float(a), float(b)) for a, b in column) for column in columns))
        for band, blocks in found.items()
        if (columns := tuple(zip(*blocks, strict=True)))
    )


def _features(bands: F64) -> list[npt.NDArray[np.complex64]]:
    known = np.ones(bands.shape[1:], bool)
    return [orientation(band_pass(b, known)) for b in bands]


def _match(
    patch: Patch,
    before: Sequence[npt.NDArray[np.complex64]],
    after: Sequence[npt.NDArray[np.complex64]],
    reference: int,
    band: int,
    moved: F64,
) -> list[tuple[F64, F64, F64]]:
    """Place, shift before and shift after of each block that can be matched in both."""
    side = patch.window.width
    block = min(_BLOCK, side)
    start = np.arange(0, side - block + 1, block)
    middle = np.ix_(start + block // 2, start + block // 2)
    guess = np.stack([moved[0][middle], moved[1][middle]], -1)
    shifts = []
    for features, told in ((before, guess), (after, np.zeros_like(guess))):
        found = correlate_blocks(
            features[reference], features[band], told, start, start, (block, block), _SEARCH
        )
        shifts.append((found.shift, found.significance))
    (then, sure_then), (now, sure_now) = shifts
    good = (sure_then > _SIGNIFICANT) & (sure_now > _SIGNIFICANT)
    y, x = np.meshgrid(start + block / 2, start + block / 2, indexing="ij")
    place = np.stack([x + patch.window.col_off, y + patch.window.row_off], -1)
    return list(zip(place[good], then[good], now[good], strict=True))
