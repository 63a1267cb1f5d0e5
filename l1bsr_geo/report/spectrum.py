"""What a result has beyond the input's Nyquist frequency: detail, and patterns of its own grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.report.correspondence import Correspondence, pixel_centres
from l1bsr_geo.report.patches import Patch

F64 = npt.NDArray[np.float64]

_BINS = 48  # rings from zero to the result's Nyquist frequency
_BESIDE = 12  # frequencies beside a harmonic that tell how much is there by chance
_AWAY = (0.02, 0.06)  # [cycles / fine px] how far beside
_SMOOTH = 1.0  # [fine px] what is smoother than this is no pattern of single pixels


@dataclass(frozen=True)
class Spectrum:
    """Mean power over directions.

    Attributes:
        frequency: [cycles / px of the input], middles of rings; 0.5 is its Nyquist frequency.
        result: power density [DN2 px2 of the input], mean of bands.
        cubic: of the input, interpolated by a cubic spline to the same pixels.
        source: of the input; NaN beyond 0.5.
        detail: per band, power beyond the input's Nyquist frequency over that between half of it
            and it.
        detail_cubic: the same of the interpolated input.
    """

    frequency: tuple[float, ...]
    result: tuple[float, ...]
    cubic: tuple[float, ...]
    source: tuple[float, ...]
    detail: tuple[float, ...]
    detail_cubic: tuple[float, ...]


@dataclass(frozen=True)
class Pattern:
    """A pattern that repeats with the model's fine pixels, such as a checkerboard.

    Attributes:
        amplitude: the largest of a band [DN], as far as the map's resampling left it.
        percent: of the standard deviation of the finest detail of that band.
        significance: amplitude over what is there by chance (root mean square beside it).
        band: which.
        period: (columns, rows) of the harmonic, in cycles over ``scale`` fine pixels.
    """

    amplitude: float
    percent: float
    significance: float
    band: str
    period: tuple[int, int]


def measure_spectrum(pair: Correspondence, patches: Sequence[Patch]) -> Spectrum | None:
    """Radial power spectra of a result, of its input, and of the input interpolated.

    The middle of each window is read from the result as it is, without resampling.

    Args:
        pair: the two images.
        patches: windows of both.

    Returns:
        None where no window has data all over its middle.
    """
    scale = pair.scale
    ours, interpolated, theirs = [], [], []
    for patch in patches:
        block = _native(patch, scale)
        if block is None:
            continue
        pixels, places = block
        ours.append(_power(pixels, 1 / scale))
        interpolated.append(_power(_interpolate(patch, places), 1 / scale))
        theirs.append(_power(_middle(patch), 1.0))
    if not ours:
        return None
    fine, cubic, coarse = (np.mean(v, 0) for v in (ours, interpolated, theirs))
    edges = np.linspace(0, 0.5 * scale, _BINS + 1)
    return Spectrum(
        tuple(((edges[1:] + edges[:-1]) / 2).tolist()),
        _radial(fine.mean(0), scale, edges),
        _radial(cubic.mean(0), scale, edges),
        _radial(coarse.mean(0), 1.0, edges),
        _beyond(fine, scale),
        _beyond(cubic, scale),
    )


def find_pattern(pair: Correspondence, patches: Sequence[Patch], scale: int) -> Pattern | None:
    """The strongest pattern that stands on the model's fine grid; None at scale 1.

    Every pixel of the result is multiplied by the wave that the harmonic has at its place on the
    fine grid, wherever the map put it, and all are added: what is not in step cancels.

    Args:
        pair: the two images.
        patches: windows of both.
        scale: fine pixels to a pixel, per axis.
    """
    if scale < 2 or not patches:
        return None
    harmonics = _harmonics(scale)
    beside = _ring(np.random.default_rng(0))
    waves = np.concatenate([harmonics / scale] + [h / scale + beside for h in harmonics])
    total = np.zeros((len(waves), len(pair.bands)), complex)
    weight, power = 0.0, np.zeros(len(pair.bands))
    for patch in patches:
        block = _native(patch, pair.scale)
        if block is None:
            continue
        pixels, (x, y) = block
        sharp = pixels - ndimage.gaussian_filter(pixels, (0, _SMOOTH, _SMOOTH))
        taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in sharp.shape[1:]))
        weight += float(taper.sum())
        power += (taper * sharp**2).sum((1, 2))
        for i, (fx, fy) in enumerate(waves):
            wave = taper * np.exp(-2j * np.pi * scale * (fx * x + fy * y))
            total[i] += (sharp * wave).sum((1, 2))
    if not weight:
        return None
    amplitude = np.abs(total) / weight
    found, noise = amplitude[: len(harmonics)], amplitude[len(harmonics) :]
    noise = np.sqrt((noise.reshape(len(harmonics), _BESIDE, -1) ** 2).mean(1))
    ratio = found / np.maximum(noise, 1e-12)
    h, b = np.unravel_index(int(ratio.argmax()), ratio.shape)
    deviation = float(np.sqrt(power[b] / weight))
    return Pattern(
        float(found[h, b]),
        100 * float(found[h, b]) / deviation if deviation else 0.0,
        float(ratio[h, b]),
        pair.bands[int(b)],
        (int(harmonics[h, 0]), int(harmonics[h, 1])),
    )


def _harmonics(scale: int) -> F64:
    """(N, 2): cycles over ``scale`` fine pixels, columns and rows, each up to its negative."""
    top = scale // 2
    pairs = [
        (fx, fy)
        for fx in range(top + 1)
        for fy in range(-top, top + 1)
        if (fx, fy) != (0, 0) and (fx > 0 or fy > 0) and not (scale % 2 == 0 and fy == -top)
    ]
    return np.array(pairs, np.float64)


def _ring(rng: np.random.Generator) -> F64:
    """(N, 2) frequencies beside zero [cycles / fine px]."""
    angle, radius = rng.uniform(0, 2 * np.pi, _BESIDE), rng.uniform(*_AWAY, _BESIDE)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _middle(patch: Patch) -> F64:
    """The input where `_native` reads the result, holes with the band's mean."""
    side = int(patch.window.width / np.sqrt(2)) // 2 * 2
    start = (patch.window.width - side) // 2
    there = (slice(None), slice(start, start + side), slice(start, start + side))
    source, known = patch.source[there], patch.known[there]
    mean = source.mean((1, 2), keepdims=True, where=known)
    return np.where(known, source, mean)


def _native(patch: Patch, scale: float) -> tuple[F64, F64] | None:
    """Pixels of the result in the middle of a window, and their x, y in the input."""
    look, window = patch.look, patch.window
    side = int(window.width * scale / np.sqrt(2)) // 2 * 2  # fits, however the map is turned
    u, v = look.nodes[:, look.nodes.shape[1] // 2, look.nodes.shape[2] // 2]
    left, top = (
        round(float(m)) - off - side // 2
        for m, off in ((u, look.block.col_off), (v, look.block.row_off))
    )
    there = Window(left, top, side, side)
    if there.intersect(Window(0, 0, look.block.width, look.block.height)) != there:
        return None
    rows, columns = there.slices
    if not look.known[rows, columns].all():
        return None
    return look.pixels[:, rows, columns], _places(look.nodes, look.origin, look.block, there)


def _places(nodes: F64, origin: tuple[int, int], block: Window, there: Window) -> F64:
    """(2, H, W) x, y in the input of pixels of a block: a quadratic fit of nodes, inverted."""
    rows, cols = nodes.shape[1:]
    x, y = np.meshgrid(origin[0] + 4 * np.arange(cols), origin[1] + 4 * np.arange(rows))
    u, v = (n.ravel() for n in nodes)
    cu, cv = u.mean(), v.mean()
    size = max(float(np.ptp(u)), 1.0)
    terms = _terms((u - cu) / size, (v - cv) / size)
    solved, *_ = np.linalg.lstsq(terms, np.stack([x.ravel(), y.ravel()], 1))
    pu, pv = pixel_centres(there.shift(block.col_off, block.row_off))
    at = _terms((pu.ravel() - cu) / size, (pv.ravel() - cv) / size) @ solved
    return np.asarray(at.T.reshape(2, *there.shape))


def _terms(u: F64, v: F64) -> F64:
    return np.stack([u**i * v**j for i in range(4) for j in range(4 - i)], 1)


def _interpolate(patch: Patch, places: F64) -> F64:
    """The input by a cubic spline at places x, y."""
    at = [places[1] - patch.window.row_off - 0.5, places[0] - patch.window.col_off - 0.5]
    return np.stack([ndimage.map_coordinates(b, at, order=3, mode="mirror") for b in patch.source])


def _power(image: F64, pixel: float) -> F64:
    """(C, n, n) power density [DN2 px2 of the input] of pixels of a size [px of the input]."""
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in image.shape[-2:]))
    level = (image * taper).sum((1, 2), keepdims=True) / taper.sum()
    turned = np.fft.fft2((image - level) * taper)
    return np.asarray(np.abs(turned) ** 2 * pixel**2 / np.square(taper).sum())


def _radius(side: int, scale: float) -> F64:
    """[cycles / px of the input] of each place of a spectrum."""
    fy, fx = np.meshgrid(*(np.fft.fftfreq(side),) * 2, indexing="ij")
    return np.asarray(np.hypot(fx, fy) * scale)


def _radial(power: F64, scale: float, edges: F64) -> tuple[float, ...]:
    """Mean of rings; NaN where there is none."""
    radius = _radius(power.shape[-1], scale)
    inside = radius <= 0.5 * scale
    ring = np.digitize(radius[inside], edges) - 1
    count = np.bincount(ring, minlength=_BINS)[:_BINS]
    summed = np.bincount(ring, power[inside], minlength=_BINS)[:_BINS]
    return tuple(np.where(count > 0, summed / np.maximum(count, 1), np.nan).tolist())


def _beyond(power: F64, scale: float) -> tuple[float, ...]:
    """Per band: power beyond the input's Nyquist frequency over that from half of it to it."""
    fy, fx = np.meshgrid(*(np.fft.fftfreq(power.shape[-1]) * scale,) * 2, indexing="ij")
    largest = np.maximum(np.abs(fx), np.abs(fy))
    within = power[:, (largest > 0.25) & (largest <= 0.5)].sum(1)
    return tuple((power[:, largest > 0.5].sum(1) / np.maximum(within, 1e-30)).tolist())
