"""How every band of two Sentinel-2 detectors lies against B03 of the first, exactly, both ways."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

# (dx, dy) [px] that B02, B03, B04, B08 are read at. Source: METHODS m2, phase correlation of the
# ten L1B crops that L1BSR (Nguyen et al. 2023) publishes, after their registration to a few pixels.
NOMINAL: F64 = -np.array(
    [
        [(0.55, -0.95), (0, 0), (2.00, 1.00), (0.53, -0.15)],
        [(-1.50, -0.80), (0, 0), (0.15, 0.90), (-0.40, -0.10)],
        [(0.45, -0.50), (0, 0), (1.45, 0.70), (0.80, 0.00)],
        [(-0.10, -0.80), (0, 0), (-0.55, -0.40), (-0.10, -0.90)],
        [(0.90, -0.95), (0, 0), (-0.15, -0.45), (0.62, -0.80)],
        [(0.65, -1.05), (0, 0), (-0.45, -0.30), (0.60, -0.80)],
        [(0.30, -1.05), (0, 0), (-0.05, -0.35), (-0.15, -0.90)],
        [(0.85, -0.85), (0, 0), (-0.60, -0.60), (0.32, -0.90)],
        [(1.05, -1.50), (0, 0), (-0.45, 1.85), (1.60, -0.50)],
        [(1.65, -1.90), (0, 0), (0.75, 1.95), (1.25, -0.45)],
    ]
)

# [px per 1000 m of height] along the track between two detectors. Source: FORMATS A3, the physical
# model of the S2A datastrip of 2020-08-16; one detector looks half of it ahead, the other behind.
_PARALLAX = np.array([1.8, 2.75, 3.6, 2.3])
_B03 = 1
_HILLS = 16.0  # [px] scale of the relief
_WAVES = 6
_CLOSE = 1e-5  # [px]


@dataclass(frozen=True)
class BandShifts:
    """How large displacements are [px].

    Attributes:
        band_shift: factor on the nominal shifts of the bands, which are those of real crops (2 px
            at most), of opposite sign in the other detector. 0: the bands of a view are registered
            to each other, unless ``shift`` moves them.
        spread: standard deviation of what is added to each nominal shift, cut at 3 of them.
        ramp: largest change from the middle of a view to its edges.
        relief: standard deviation of the displacement of B03 between the detectors by smooth hills;
            every other band moves in proportion to its parallax. 0.1 is hills of 36 m.
        shift: every band of either view but the reference moves by up to this as well, uniformly.
        between: the second detector moves by up to this as a whole, uniformly.
    """

    band_shift: float = 1.0
    spread: float = 0.3
    ramp: float = 0.5
    relief: float = 0.1
    shift: float = 0.0
    between: float = 3.0

    @property
    def reach(self) -> float:
        """No displacement is larger, in the middle of a view or at its corners."""
        nominal = self.band_shift * float(np.abs(NOMINAL).max())
        hills = 1.2 * self.relief * np.sqrt(2 * _WAVES)
        return float(
            nominal + 3 * self.spread + 1.5 * self.ramp + hills + self.shift + self.between
        )


@dataclass(frozen=True, eq=False)
class OverlapMotion:
    """Pixel p of the reference is seen in band b of view t at p + a (p - centre) + c + k h(p).

    Attributes:
        affine: (2, 4, 2, 3): a and c, for detector and band; zero for the reference.
        parallax: (2, 4) k, along the columns [px].
        waves: (3, N) of the relief h: x and y of the wave vectors [rad / px], and phases.
        centre: (2,) (x, y) of a view.
    """

    affine: F64
    parallax: F64
    waves: F64
    centre: F64

    @classmethod
    def draw(
        cls, rng: np.random.Generator, shape: tuple[int, int], shifts: BandShifts
    ) -> "OverlapMotion":
        """A random motion."""
        side = np.array([1.0, -1.0])[:, None]  # the second detector looks the other way
        crops = rng.integers(len(NOMINAL), size=2)
        spread = shifts.spread * np.clip(rng.standard_normal((2, 4, 2)), -3, 3)
        move = shifts.band_shift * NOMINAL[crops] * side[..., None] + spread
        move += shifts.shift * rng.uniform(-1, 1, (2, 4, 2))
        ramp = rng.uniform(-shifts.ramp, shifts.ramp, (2, 4, 2))
        turn = rng.uniform(0, 2 * np.pi, (2, 4, 2))
        slope = np.stack([np.cos(turn) / shape[1], np.sin(turn) / shape[0]], -1)
        linear = 2 * ramp[..., None] * slope
        parallax = shifts.relief * (side * _PARALLAX - _PARALLAX[_B03]) / (2 * _PARALLAX[_B03])
        if not (shifts.band_shift or shifts.shift):  # nothing is between the bands of a view
            move[:] = 0
            linear[:], parallax[:] = linear[:, _B03, None], parallax[:, _B03, None]
            linear[0] = 0
        move[1] += shifts.between * rng.uniform(-1, 1, 2)
        move[0, _B03] = linear[0, _B03] = 0
        vectors = rng.standard_normal((2, _WAVES)) / _HILLS
        waves = np.concatenate([vectors, rng.uniform(0, 2 * np.pi, (1, _WAVES))])
        affine = np.concatenate([linear, move[..., None]], -1)
        return cls(affine, parallax, waves, np.array(shape[::-1]) / 2)

    def flow(self, shape: tuple[int, int]) -> F32:
        """At the pixels of the reference, (2, 4, 2, H, W) [px], (dx, dy)."""
        p = _pixels(shape)
        linear = np.einsum("tbij,jhw->tbihw", self.affine[..., :2], p - self.centre[:, None, None])
        flow = linear + self.affine[..., 2, None, None]
        flow[:, :, 1] += self.parallax[..., None, None] * self._hills(p)
        return np.asarray(flow, np.float32)

    def places(self, t: int, b: int, shape: tuple[int, int]) -> F64:
        """Where in the reference each pixel of a view looks, (2, H, W) (x, y)."""
        q = _pixels(shape)
        affine, k = self.affine[t, b], float(self.parallax[t, b])
        centre = self.centre[:, None, None]
        back = np.linalg.inv(np.eye(2) + affine[:, :2])
        flat = centre + np.einsum("ij,jhw->ihw", back, q - centre - affine[:, 2, None, None])
        if k == 0:
            return np.asarray(flat)
        lean = k * back[:, 1, None, None]
        p = flat
        for _ in range(50):  # contracts by the slope of the relief, 0.02 as a rule
            before, p = p, flat - lean * self._hills(p)
            if float(np.abs(p - before).max()) < _CLOSE:
                break
        return np.asarray(p)

    def _hills(self, p: F64) -> F64:
        """Relief at (2, H, W) points, standard deviation 1: a Gaussian field in closed form."""
        x, y, phase = self.waves.astype(np.float32)[:, :, None, None]  # ten times the speed
        px, py = p.astype(np.float32)
        return np.asarray(np.cos(x * px + y * py + phase).sum(0) * np.sqrt(2 / len(phase)))


def _pixels(shape: tuple[int, int]) -> F64:
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.stack([x, y])
