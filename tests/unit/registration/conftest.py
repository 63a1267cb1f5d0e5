"""A made-up acquisition whose band displacements are known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, spatial

from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bands import BandStack

BANDS = ("B02", "B03", "B04", "B08")
MTF = (0.26, 0.28, 0.24, 0.26)  # at Nyquist
MARGIN = 16


@dataclass(frozen=True)
class ArraySource:
    pixels: np.ndarray[Any, Any]

    @property
    def shape(self):
        return self.pixels.shape

    @property
    def dtype(self):
        return self.pixels.dtype

    def read(self, window: Window):
        inside = Window(0, 0, self.shape[1], self.shape[0]).intersect(window)
        assert inside == window, "a source is read inside the image only"
        return self.pixels[window.slices]


@pytest.fixture(scope="session")
def stack_of() -> Callable[..., BandStack]:
    def make(pixels, grids=None, **more):
        sources = {b: ArraySource(p) for b, p in zip(BANDS, pixels, strict=True)}
        grids = grids or {b: GeoGrid(p.shape) for b, p in zip(BANDS, pixels, strict=True)}
        return BandStack(sources, grids, "B03", **more)

    return make


@dataclass(frozen=True)
class Acquisition:
    """(4, height, width) uint16 pixels, and (4, 2, height, width) the true flow."""

    pixels: np.ndarray[Any, Any]
    flow: np.ndarray[Any, Any]


@pytest.fixture(scope="session")
def acquisition() -> Acquisition:
    """Fields of which half are vegetation, dark in the visible where bright in the near infrared;
    aliased and noisy (METHODS m2); displaced by up to 10 px, with gradient and attitude wobble."""
    shape = (352, 320)
    scene = _scene(*shape)
    y, x = (v + 0.5 for v in np.mgrid[: shape[0], : shape[1]])
    back, rng = _back(x, y, shape), np.random.default_rng(1)
    pixels = []
    for band, mtf in enumerate(MTF):
        blurred = ndimage.gaussian_filter(scene[band], 2 * np.sqrt(-2 * np.log(mtf)) / np.pi)
        at = [2 * (v + back[band, k] + MARGIN) - 0.5 for v, k in ((y, 1), (x, 0))]
        seen = ndimage.map_coordinates(blurred, at, order=3)
        pixels.append(np.rint(seen + rng.standard_normal(shape) * np.sqrt(0.01 * seen + 0.1)))
    flow = np.zeros((4, 2, *shape))
    for _ in range(20):  # band pixel q shows scene q + back(q): p + flow(p) must show scene p
        flow = -np.stack([_back(x + f[0], y + f[1], shape)[c] for c, f in enumerate(flow)])
    return Acquisition(np.stack(pixels).astype(np.uint16), flow)


def _back(x, y, shape):
    def wobble(delay):
        return 0.7 * (np.sin(2 * np.pi * (y + delay) / 500) - np.sin(2 * np.pi * y / 500))

    u, v, zero = x / shape[1], y / shape[0], 0 * x
    return np.array(
        [
            (8 + 1.5 * u + wobble(-350), -7 - u + 0.2 * v),
            (zero, zero),
            (-8 - 1.5 * u + wobble(320), 9 + 0.8 * u),
            (3 + 0.5 * u + wobble(-176), -4 - 0.4 * u),
        ]
    )


def _scene(height, width):
    rng = np.random.default_rng(0)
    shape = 2 * (height + 2 * MARGIN), 2 * (width + 2 * MARGIN)
    fields = shape[0] * shape[1] // 1200
    points = rng.uniform(0, 1, (fields, 2)) * shape
    pixel = np.stack(np.mgrid[: shape[0], : shape[1]], -1).reshape(-1, 2)
    field = spatial.cKDTree(points).query(pixel)[1].reshape(shape)
    tone = rng.uniform(0.6, 1.5, fields)
    vegetation = rng.uniform(size=fields) < 0.5
    near_infrared = np.where(vegetation, 1.7 - 0.5 * tone, tone) * rng.uniform(0.85, 1.15, fields)
    common = _texture(rng, shape)
    inverted = np.where(vegetation, -0.5, 0.7)[field]
    bands = [
        level * (tone**gain)[field] * np.exp(0.12 * common + 0.02 * _texture(rng, shape))
        for level, gain in ((240, 0.9), (245, 1.0), (200, 1.2))
    ]
    own = 0.06 * _texture(rng, shape)
    return [*bands, 450 * near_infrared[field] * np.exp(0.10 * inverted * common + own)]


def _texture(rng, shape):
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    frequency[0, 0] = 1
    noise = np.fft.rfft2(rng.standard_normal(shape)) * frequency**-1.3
    texture = np.fft.irfft2(noise, shape)
    return texture / texture.std()
