"""How a frame of a simulated burst lies against the reference, exactly, both ways."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

HILLS = 16.0  # [px] scale of the relief
_ROW_MEMORY = 0.95  # correlation of the jitter of neighbouring rows


@dataclass(frozen=True, eq=False)
class Motion:
    """Motion of a frame: reference position p is seen at q = p + field(p) + jitter(row of q).

    Attributes:
        affine: (2, 3) about ``centre``, whole pixels included.
        centre: (x, y).
        rows: (2, H) jitter of each row of the frame.
        amount: of parallax along the columns [px].
        hills: relief over the frame and a margin, or None.
    """

    affine: F64
    centre: F64
    rows: F64
    amount: float
    hills: F32 | None = None

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        shape: tuple[int, int],
        whole: npt.NDArray[np.int_],
        moves: bool,
        shift: float,
        affine: float,
        jitter: float,
        parallax: float,
    ) -> "Motion":
        """A random motion; none at all where not ``moves``. See `simulate_burst`."""
        centre = np.array(shape[::-1]) / 2
        if not moves:
            return cls(np.zeros((2, 3)), centre, np.zeros((2, shape[0])), 0.0)
        linear = affine * rng.standard_normal((2, 2))
        constant = whole + rng.uniform(-shift, shift, 2)
        noise = jitter * rng.standard_normal((2, shape[0]))
        noise[:, 1:] *= np.sqrt(1 - _ROW_MEMORY**2)
        rows = signal.lfilter([1.0], [1.0, -_ROW_MEMORY], noise)
        return cls(
            np.column_stack([linear, constant]), centre, rows, parallax * rng.standard_normal()
        )

    def over(self, hills: F32) -> "Motion":
        """The same over relief, as `made_relief` gives it."""
        return replace(self, hills=hills)

    @cached_property
    def translation(self) -> F64 | None:
        """(dx, dy) where there is nothing else."""
        bent = (
            self.affine[:, :2].any() or self.rows.any() or (self.hills is not None and self.amount)
        )
        return None if bent else self.affine[:, 2]

    def flow(self, shape: tuple[int, int]) -> F32:
        """At the pixels of the reference, (2, H, W)."""
        p = _pixels(shape)
        q = p + self._field(p)
        for _ in range(6):
            q = p + self._field(p) + self._jitter(q)
        return np.asarray(q - p, np.float32)

    def places(self, shape: tuple[int, int]) -> F64:
        """Where in the reference each pixel of the frame looks, (2, H, W) (x, y)."""
        q = _pixels(shape)
        seen = q - self._jitter(q)
        p = seen - self.affine[:, 2, None, None]
        for _ in range(12):  # contracts by the slope of the field, 0.01 at most
            p = seen - self._field(p)
        return np.asarray(p, np.float64)

    def _field(self, p: F64) -> F64:
        linear = np.einsum("ij,jhw->ihw", self.affine[:, :2], p - self.centre[:, None, None])
        field = linear + self.affine[:, 2, None, None]
        if self.hills is not None and self.amount:
            at = np.stack([p[1], p[0]]) - 0.5 + HILLS
            field[1] += self.amount * ndimage.map_coordinates(
                self.hills, at, order=3, mode="nearest"
            )
        return np.asarray(field, np.float64)

    def _jitter(self, q: F64) -> F64:
        height = self.rows.shape[1]
        at = np.arange(height) + 0.5
        return np.stack([np.interp(q[1], at, row) for row in self.rows])


def _pixels(shape: tuple[int, int]) -> F64:
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.stack([x, y])


def made_relief(rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    """Smooth hills of standard deviation 1, with a margin of one scale."""
    size = [n + 2 * int(HILLS) for n in shape]
    noise = ndimage.gaussian_filter(rng.standard_normal(size, np.float32), HILLS, mode="wrap")
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)
