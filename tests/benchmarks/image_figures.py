"""What is said of super-resolved bands: against the truth, and of themselves.

Images are (C, H, W) [DN]. x = DN / 400 is what figures with a peak are taken of: the peak is 1.
"""

import numpy as np
from scipy import ndimage

PEAK = 400.0  # [DN]
_LOW = 0.2  # [cycles / px] shifts are measured below; what is above may be alias, or learnt


def psnr(image, truth):
    """Of each band [dB], peak 1."""
    return -10 * np.log10((((image - truth) / PEAK) ** 2).mean((1, 2)))


def ssim(image, truth):
    """Of each band, data range 1: Gaussian of 11 x 11 and sigma 1.5, where it fits in the image.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity,
    IEEE TIP 2004.
    """
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()

    def mean(plane):
        plane = ndimage.correlate1d(ndimage.correlate1d(plane, taps, axis=1), taps, axis=2)
        return plane[:, 5:-5, 5:-5]

    x, y = image / PEAK, truth / PEAK
    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (xx + yy + c2))
    return alike.mean((1, 2))


def spectral_angle(image, truth):
    """Mean angle between the spectra of result and truth [degrees]."""
    lengths = np.linalg.norm(image, axis=0) * np.linalg.norm(truth, axis=0)
    cosine = (image * truth).sum(0) / np.maximum(lengths, 1e-9)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def displacements(image, truth, block=64):
    """How each band lies against its truth, block by block: (blocks, C, 2) (dx, dy) [px].

    The phase of the cross-spectrum of two windowed blocks falls linearly with frequency; a line
    through zero is laid through it, which counts by the power.

    Source: Stone et al., A fast direct Fourier-based algorithm for subpixel registration of
    images, IEEE TGRS 2001.
    """
    window = np.outer(*(np.hanning(block + 2)[1:-1],) * 2)
    fy, fx = np.meshgrid(*(np.fft.fftfreq(block),) * 2, indexing="ij")
    used = (np.hypot(fx, fy) < _LOW) & (np.maximum(abs(fx), abs(fy)) > 2.5 / block)
    f = 2 * np.pi * np.stack([fx[used], fy[used]])
    found = []
    for there, true in zip(_blocks(image, block), _blocks(truth, block), strict=True):
        a, b = (np.fft.fft2((v - v.mean((1, 2), keepdims=True)) * window) for v in (there, true))
        cross = (a * b.conj())[:, used]
        weight, phase = np.abs(cross), np.angle(cross)
        normal = np.einsum("if,cf,jf->cij", f, weight, f)
        right = -np.einsum("if,cf->ci", f, weight * phase)
        found.append(np.linalg.solve(normal, right[..., None])[..., 0])
    return np.array(found)


def mean_spectrum(image, side=64):
    """Power of each band, (C, side, side), zero frequency in the middle: Welch, Hann window."""
    window = np.outer(*(np.hanning(side + 1)[:-1],) * 2)
    powers = [
        np.abs(np.fft.fft2((block - block.mean((1, 2), keepdims=True)) * window)) ** 2
        for block in _blocks(image, side, side // 2)
    ]
    return np.fft.fftshift(np.mean(powers, 0), axes=(1, 2))


def share_beyond(spectrum):
    """Share of the power beyond the Nyquist frequency of pixels twice as large, by band."""
    f = np.abs(np.arange(spectrum.shape[1]) / spectrum.shape[1] - 0.5)
    beyond = np.maximum(f[:, None], f) > 0.25
    return spectrum[:, beyond].sum(1) / spectrum.sum((1, 2))


def checkerboard(spectrum):
    """How much power stands out at the highest frequencies, by band; 1 is not at all.

    Patterns that repeat every second pixel, of rows, of columns or of both, lie at (0, 1/2),
    (1/2, 0) and (1/2, 1/2) cycles per pixel, or, where they are of the image's contrast, along the
    lines through them. The largest of the ratios of the power there to that of the neighbours.
    """
    side = spectrum.shape[1]
    zero = side // 2
    top = np.roll(spectrum, (zero, zero), (1, 2))  # the highest frequencies in the middle
    at, near = (np.abs(np.arange(side) - zero) <= 1), np.abs(np.arange(side) - zero)
    near = (near >= 4) & (near <= 8)
    zeros = np.roll(at, zero)  # low frequencies of the other axis
    ratios = []
    for plane in (top, top.swapaxes(1, 2)):
        rows, around = plane[:, at].mean(1), plane[:, near].mean(1)
        ratios += [rows[:, chosen].mean(1) / around[:, chosen].mean(1) for chosen in (zeros, at)]
        ratios.append(rows.mean(1) / around.mean(1))
    return np.max(ratios, 0)


def _blocks(image, side, step=None):
    step = step or side
    rows, columns = (range(0, n - side + 1, step) for n in image.shape[1:])
    for y in rows:
        for x in columns:
            yield image[:, y : y + side, x : x + side]
