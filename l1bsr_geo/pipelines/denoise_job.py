"""What denoising is asked, and what it came to."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import xarray as xr

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.identity import hash_restorer
from l1bsr_geo.models.registry import Device, Precision
from l1bsr_geo.ops.mosaic import Pattern
from l1bsr_geo.pipelines.job import PathLike
from l1bsr_geo.pipelines.made_of import say_files
from l1bsr_geo.restoration.noise_level import Noise

Method: TypeAlias = Literal["mf2f", "f2f", "m2m", "n2n", "fastdvdnet", "dncnn"]
Mode: TypeAlias = Literal["online", "offline"]
Progress: TypeAlias = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with what is done ("learning" or "restoring"), how much, of how much, and figures."""

_ONLINE = ("mf2f", "f2f")  # the others have no online mode
_FILES = ("source", "truth", "weights")
_ELSEWHERE = ("output", "stac", "overwrite", "resume", "truth", "device")  # change no pixel


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoiseJob:
    """What is read, how it is denoised, and what is written.

    Attributes:
        source: video file, folder of frames, raster whose bands are times, SkySat burst, or a
            DataArray (time, band, y, x) or (time, y, x).
        output: of the same kind: a video file (or a folder of frames), a folder, a GeoTIFF. Where
            None the result is a DataArray.
        method: "mf2f" (several frames, learns from the video), "f2f" (single frames, learns from
            the video), "m2m" (raw mosaics to colours, learns from them), "n2n" (frames of a scene
            without motion, learns from them), "fastdvdnet", "dncnn" (as trained).
        mode: "online" learns frame after frame, "offline" from all of the video first; online for
            mf2f and f2f where None, the others have one way.
        teacher: mf2f, f2f: a network that is told the noise at every brightness teaches what
            neighbours hide.
        noise: standard deviation [DN], or (a, b) of var = a x + b, that fastdvdnet and mf2f are
            told; "auto" estimates it.
        frames: which, in order of time; all where None.
        bands_per_frame: of a raster whose bands are times.
        camera: of a SkySat burst of several.
        pattern: m2m: colours of the first two rows, such as "rggb".
        truth: the same without noise, to tell the PSNR.
        weights: to begin with; those that come with the package where None.
        network: to begin with instead; a torch module with a ``spec``, is copied.
        iterations: of learning offline, or on each group of frames online; usual where None.
        crop: [px] of what is learnt from; usual where None.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
        tile: largest core of a tile [px].
        seed: of everything random.
        stac: write a STAC item beside every TIFF of the output.
        overwrite: replace an existing output.
        resume: go on from what a run of the same job left when it was killed; leave the same on
            failure.

    Raises:
        BadOptionError: a value that is impossible, or options that exclude each other.
    """

    source: PathLike | xr.DataArray
    output: PathLike | None = None
    method: Method = "mf2f"
    mode: Mode | None = None
    teacher: bool = False
    noise: str | float | tuple[float, float] = "auto"
    frames: slice | None = None
    bands_per_frame: int = 1
    camera: str | None = None
    pattern: Pattern = "rggb"
    truth: PathLike | xr.DataArray | None = None
    weights: PathLike | None = None
    network: Restorer | None = None
    iterations: int | None = None
    crop: int | None = None
    device: Device = "auto"
    precision: Precision = "auto"
    tile: int | None = None
    seed: int = 0
    stac: bool = False
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible options before anything is read."""
        for name, choices in (
            ("method", get_args(Method)),
            ("mode", (None, *get_args(Mode))),
            ("pattern", get_args(Pattern)),
        ):
            if getattr(self, name) not in choices:
                there = ", ".join(str(c) for c in choices if c)
                raise BadOptionError(f"--{name} {getattr(self, name)}: allowed are {there}")
        if self.method not in _ONLINE:
            if self.mode == "online" or (self.mode and self.method in ("fastdvdnet", "dncnn")):
                raise BadOptionError(
                    f"--mode {self.mode}: {self.method} has no such way; mf2f and f2f have"
                )
            if self.teacher:
                raise BadOptionError(f"--teacher: {self.method} has none; mf2f and f2f have")
        if self.teacher and self.method == "f2f":
            raise BadOptionError("--teacher: it is told the noise, which f2f's network is not")
        if self.network is not None and self.weights is not None:
            raise BadOptionError("a network was given with weights, but it has its own")
        numbers = () if self.noise == "auto" else self.known_noise
        if not all(math.isfinite(v) and v >= 0 for v in numbers) or (numbers and not any(numbers)):
            raise BadOptionError(
                f"--noise {self.noise}: auto, a standard deviation above 0, or a,b of var = a x + b"
            )
        for name in ("iterations", "crop", "tile"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadOptionError(f"--{name} {value}: 1 or more was expected")
        if self.resume and (self.output is None or isinstance(self.source, xr.DataArray)):
            raise BadOptionError("--resume: only what is read from files and written to files can")

    @property
    def known_noise(self) -> Noise:
        """What the user says of the noise [DN].

        Raises:
            BadOptionError: not two numbers, or not numbers.
        """
        try:
            if isinstance(self.noise, tuple):
                a, b = self.noise
                return Noise(float(a), float(b))
            return Noise(0.0, float(self.noise) ** 2)
        except (TypeError, ValueError):
            raise BadOptionError(
                f"--noise {self.noise}: auto, a standard deviation above 0, or a,b of var = a x + b"
            ) from None

    def say(self) -> dict[str, str]:
        """What the pixels of the result depend on, as text: what a resumed run must have alike."""
        said: dict[str, str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _ELSEWHERE or value is None:
                continue
            if field.name in _FILES and not isinstance(value, xr.DataArray):
                said[field.name] = say_files(value, self.output or "")
            elif isinstance(value, Restorer):
                said[field.name] = hash_restorer(value) or "untrained"
            elif not isinstance(value, xr.DataArray):
                said[field.name] = str(value)
        return said


@dataclass(frozen=True, eq=False)
class Denoised:
    """What denoising came to.

    Attributes:
        result: the file or folder written; or the array, (time, band, y, x) or as the one given.
        noise: estimated from single noisy frames [DN]; None where there is no block to tell it.
        taken_off: estimated from what was taken off [DN].
        told: the noise that the network was told [DN], or None: what is usual for it.
        shots: stretches between cuts.
        psnr: of noisy and restored against the truth [dB], means over frames; None without truth.
    """

    result: Path | xr.DataArray
    noise: Noise | None
    taken_off: Noise
    told: Noise | None
    shots: tuple[range, ...]
    psnr: tuple[float, float] | None
