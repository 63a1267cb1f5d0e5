"""Noise of known kinds on clean images, in any unit: 8-bit or 12-bit DN alike.

Images are (..., C, H, W); what hides or replaces pixels does so in all bands alike.

Sources: Lehtinen et al., Noise2Noise, ICML 2018 (gaussian, poisson, bernoulli, text, impulse);
Dewil et al., MF2F, WACV 2021 (scaled Poisson, box, demosaicked).
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.ops.mosaic import demosaick_bilinear, sample_mosaic
from l1bsr_geo.simulation.letters import cover_with_text

F32 = npt.NDArray[np.float32]

_ANY = (0.0, np.inf)
_SOME = (1e-6, np.inf)


class Noise(Protocol):
    """A family of noise with its parameters."""

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """A noisy look at clean images (..., C, H, W) [DN]; nothing is clipped or rounded."""
        ...

    def spread(self, clean: F32) -> F32:
        """Root mean square of what is added to each pixel [DN], shaped as the images."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """White and alike everywhere: y = x + sigma n.

    Attributes:
        sigma: standard deviation [DN].
    """

    sigma: float

    def __post_init__(self) -> None:
        _allow(self, sigma=_ANY)

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """See `Noise`."""
        return clean + np.float32(self.sigma) * rng.standard_normal(clean.shape, np.float32)

    def spread(self, clean: F32) -> F32:
        """See `Noise`."""
        return np.full_like(clean, self.sigma)


@dataclass(frozen=True)
class _OfPhotons:
    """Noise of counting.

    Attributes:
        p: DN to a photon.
    """

    p: float

    def __post_init__(self) -> None:
        _allow(self, p=_SOME)


@dataclass(frozen=True)
class Poisson(_OfPhotons):
    """Of counted photons: y = p * Poisson(x / p), whose variance is p x."""

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """See `Noise`."""
        counts = rng.poisson(np.maximum(clean, 0) / self.p)
        return np.asarray(self.p * counts, np.float32)

    def spread(self, clean: F32) -> F32:
        """See `Noise`."""
        return np.sqrt(self.p * np.maximum(clean, 0))


@dataclass(frozen=True)
class Affine:
    """Of a sensor: Gaussian, with the variance a x + b.

    Attributes:
        a: of photons [DN].
        b: of readout [DN^2].
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        _allow(self, a=_ANY, b=_ANY)

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """See `Noise`."""
        return clean + self.spread(clean) * rng.standard_normal(clean.shape, np.float32)

    def spread(self, clean: F32) -> F32:
        """See `Noise`."""
        return np.asarray(np.sqrt(self.a * np.maximum(clean, 0) + self.b), np.float32)


@dataclass(frozen=True)
class Box:
    """Correlated: white noise averaged over size x size pixels, as processing leaves it.

    What is left has the standard deviation sigma / size.

    Attributes:
        sigma: standard deviation of the white noise [DN].
        size: of the box [px].
    """

    sigma: float
    size: int

    def __post_init__(self) -> None:
        _allow(self, sigma=_ANY, size=(1, np.inf))

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """See `Noise`."""
        more = self.size - 1
        *outer, height, width = clean.shape
        white = rng.standard_normal((*outer, height + more, width + more), np.float32)
        for axis in (-2, -1):
            white = ndimage.uniform_filter1d(white, self.size, axis)
        first = self.size // 2  # pixels whose box lies in what was drawn
        inside = (..., slice(first, first + height), slice(first, first + width))
        return clean + np.float32(self.sigma) * white[inside]

    def spread(self, clean: F32) -> F32:
        """See `Noise`."""
        return np.full_like(clean, self.sigma / self.size)


@dataclass(frozen=True)
class Bernoulli:
    """Pixels that are missing: y = m x with m = 0 by chance p, else 1.

    Attributes:
        p: share of the pixels that are lost.
    """

    p: float

    def __post_init__(self) -> None:
        _allow(self, p=(0, 1))

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """See `Noise`."""
        return self.look(clean, rng)[0]

    def look(self, clean: F32, rng: np.random.Generator) -> tuple[F32, F32]:
        """A noisy look, and a mask (..., 1, H, W), 1 where it shows the image and 0 elsewhere."""
        kept = rng.random(_one_band(clean), np.float32) >= self.p
        return clean * kept, kept.astype(np.float32)

    def spread(self, clean: F32) -> F32:
        """See `Noise`."""
        return np.float32(np.sqrt(self.p)) * np.abs(clean)


@dataclass(frozen=True)
class Impulse:
    """Pixels that are replaced: by chance p with any colour, else left alone.

    Attributes:
        p: share of the pixels that are replaced.
        peak: colours are uniform from 0 to this [DN].
    """

    p: float
    peak: float = 255.0

    def __post_init__(self) -> None:
        _allow(self, p=(0, 1), peak=_SOME)

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """See `Noise`."""
        hit = rng.random(_one_band(clean), np.float32) < self.p
        return np.where(hit, np.float32(self.peak) * rng.random(clean.shape, np.float32), clean)

    def spread(self, clean: F32) -> F32:
        """See `Noise`."""
        return _replaced(clean, self.p, self.peak)


@dataclass(frozen=True)
class Text:
    """Letters of any colour and size, each over what was there, until a share is covered.

    Attributes:
        p: share of the pixels that are covered, or a little more: the last letter is whole.
        peak: colours are uniform from 0 to this [DN].
    """

    p: float
    peak: float = 255.0

    def __post_init__(self) -> None:
        _allow(self, p=(0, 0.9), peak=_SOME)

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """See `Noise`."""
        noisy = clean.copy()
        for image in noisy.reshape(-1, *clean.shape[-3:]):  # a view: it is contiguous
            cover_with_text(image, self.p, self.peak, rng)
        return noisy

    def spread(self, clean: F32) -> F32:
        """See `Noise`."""
        return _replaced(clean, self.p, self.peak)


@dataclass(frozen=True)
class Demosaicked(_OfPhotons):
    """Poisson noise on a Bayer mosaic (RGGB), which then is demosaicked: correlated."""

    def add(self, clean: F32, rng: np.random.Generator) -> F32:
        """See `Noise`.

        Raises:
            BadOptionError: the images have other than three bands.
        """
        if clean.shape[-3] != 3:
            raise BadOptionError(f"a Bayer mosaic has 3 colours; found {clean.shape[-3]} bands")
        images = torch.from_numpy(np.ascontiguousarray(clean).reshape(-1, *clean.shape[-3:]))
        mosaic = Poisson(self.p).add(sample_mosaic(images, "rggb").numpy(), rng)
        seen = demosaick_bilinear(torch.from_numpy(mosaic), "rggb").numpy()
        return np.asarray(seen.reshape(clean.shape), np.float32)

    def spread(self, clean: F32) -> F32:
        """See `Noise`: of the mosaic; averaging by the demosaicking lowers it."""
        return Poisson(self.p).spread(clean)


FAMILIES: Mapping[str, type[Any]] = {
    "gaussian": Gaussian,
    "poisson": Poisson,
    "affine": Affine,
    "box": Box,
    "bernoulli": Bernoulli,
    "impulse": Impulse,
    "text": Text,
    "demosaicked": Demosaicked,
}
"""The families by name, as recipes say them."""


@dataclass(frozen=True)
class NoiseRange:
    """A family of noise whose parameters are drawn anew each time.

    Attributes:
        family: name in ``FAMILIES``.
        parameters: of the family by name: a value, or the least and the most of a uniform draw.

    Raises:
        BadOptionError: a family, a parameter or a value that there is not.
    """

    family: str
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise BadOptionError(
                f"noise.family: found {self.family!r}, allowed {', '.join(FAMILIES)}"
            )
        takes = {f.name: f.default is not MISSING for f in fields(FAMILIES[self.family])}
        needed = {name for name, optional in takes.items() if not optional}
        if not needed <= set(self.parameters) <= set(takes):
            found = ", ".join(self.parameters) or "none"
            raise BadOptionError(f"noise: {self.family} takes {', '.join(takes)}; found {found}")
        for end in (0, 1):
            self._make({name: _ends(name, v)[end] for name, v in self.parameters.items()})

    def draw(self, rng: np.random.Generator) -> Noise:
        """A noise with parameters of its own."""
        ends = {name: _ends(name, value) for name, value in self.parameters.items()}
        return self._make({k: rng.uniform(*v) if v[0] < v[1] else v[0] for k, v in ends.items()})

    def _make(self, values: Mapping[str, float]) -> Noise:
        noise: Noise = FAMILIES[self.family](**values)
        return replace(noise, size=round(noise.size)) if isinstance(noise, Box) else noise


def _ends(name: str, value: Any) -> tuple[float, float]:
    ends = tuple(value) if isinstance(value, list | tuple) else (value, value)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in ends)
    if len(ends) != 2 or not numbers or ends[0] > ends[1]:
        raise BadOptionError(
            f"noise.{name}: found {value!r}, allowed a number, or the least and the most of a range"
        )
    return ends


def _allow(noise: object, **ranges: tuple[float, float]) -> None:
    for name, (least, most) in ranges.items():
        value = getattr(noise, name)
        if not least <= value <= most:
            raise BadOptionError(
                f"{type(noise).__name__} noise, {name}: found {value:g}, allowed {least:g} to "
                f"{most:g}"
            )


def _one_band(images: F32) -> tuple[int, ...]:
    return (*images.shape[:-3], 1, *images.shape[-2:])


def _replaced(clean: F32, share: float, peak: float) -> F32:
    """Root mean square error where a share of the pixels gets uniform values."""
    return np.asarray(np.sqrt(share * ((clean - peak / 2) ** 2 + peak**2 / 12)), np.float32)
