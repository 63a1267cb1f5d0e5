"""Fine images to simulate bursts of: aerial photographs where they are, else made-up ground."""

from pathlib import Path

import numpy as np
from PIL import Image

AERIAL = Path(__file__).resolve().parents[2].parent / "shared/data/aerial"


def fine_scenes(count, size, place="seneca", skip=0):
    """Radiance [DN], float32 (size, size) each.

    Photographs are halved (Lanczos), which kills what JPEG and Bayer pattern left.

    Args:
        count: of scenes.
        size: rows and columns.
        place: folder of photographs: ``"seneca"`` (fields and woods) or ``"brighton"`` (a park and
            buildings).
        skip: photographs to leave out: other ones than those that parameters were chosen on.
    """
    paths = sorted((AERIAL / place).glob("*.jpg"))
    if len(paths) < count + skip:
        return [made_ground(size, skip + seed) for seed in range(count)]
    return [photograph(path, size) for path in paths[skip :: len(paths) // count][:count]]


def photograph(path, size):
    with Image.open(path) as image:
        grey = image.convert("L")
        half = grey.resize((grey.width // 2, grey.height // 2), Image.Resampling.LANCZOS)
    top, left = (n // 2 - size // 2 for n in (half.height, half.width))
    crop = np.asarray(half, np.float32)[top : top + size, left : left + size] / 255
    return (3400 * (0.08 + 0.65 * crop)).astype(np.float32)


def made_ground(size, seed):
    """Fields with sharp borders, and texture whose spectrum falls as that of photographs."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) + 1 / size

    def noise(slope):
        white = np.fft.rfft2(rng.standard_normal((size, size)))
        made = np.fft.irfft2(white * f**-slope, (size, size))
        return (made - made.mean()) / made.std()

    fields = sum(np.sign(noise(1.8)) for _ in range(4)) / 4
    grey = np.clip(0.5 + 0.18 * fields + 0.05 * noise(1.0), 0, 1)
    return (3400 * (0.08 + 0.65 * grey)).astype(np.float32)
