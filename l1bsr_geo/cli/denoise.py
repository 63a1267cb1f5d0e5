"""`l1bsr-geo denoise`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from l1bsr_geo.cli.console import show_steps
from l1bsr_geo.cli.options import (
    CameraOption,
    Device,
    DeviceOption,
    OverwriteOption,
    Precision,
    PrecisionOption,
    ResumeOption,
    StacOption,
    TileOption,
)
from l1bsr_geo.errors import BadOptionError

if TYPE_CHECKING:
    from l1bsr_geo.restoration.noise_level import Noise


class Method(StrEnum):
    """How a video is denoised."""

    MF2F = "mf2f"
    F2F = "f2f"
    M2M = "m2m"
    N2N = "n2n"
    FASTDVDNET = "fastdvdnet"
    DNCNN = "dncnn"


class Mode(StrEnum):
    """When a network learns."""

    ONLINE = "online"
    OFFLINE = "offline"


class Pattern(StrEnum):
    """Colours of the first two rows of a mosaic."""

    RGGB = "rggb"
    BGGR = "bggr"
    GRBG = "grbg"
    GBRG = "gbrg"


def denoise_video(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Video file, folder of frames, GeoTIFF whose bands are times, SkySat burst.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The same kind, to write.")],
    method: Annotated[
        Method,
        typer.Option(
            help="mf2f and f2f learn from the video, m2m from raw mosaics, n2n from frames without "
            "motion; fastdvdnet and dncnn as trained."
        ),
    ] = Method.MF2F,
    mode: Annotated[
        Mode | None, typer.Option(help="Learn frame after frame, or from all of them first.")
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="mf2f: learn what neighbours hide from a teacher.")
    ] = False,
    noise: Annotated[
        str, typer.Option(help="auto, SIGMA, or A,B of variance = A x + B [DN].")
    ] = "auto",
    frames: Annotated[
        str | None, typer.Option(help="FIRST:END, or with a third, :STEP; from 0. Or how many.")
    ] = None,
    bands_per_frame: Annotated[
        int, typer.Option(min=1, help="Of a GeoTIFF whose bands are times.")
    ] = 1,
    camera: CameraOption = None,
    pattern: Annotated[
        Pattern, typer.Option(help="m2m: colours of the first rows.")
    ] = Pattern.RGGB,
    truth: Annotated[
        Path | None, typer.Option(help="The same without noise: PSNR is shown.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights to begin with; the package's own by default.")
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Of learning: in all (offline), on each group (online)."),
    ] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Of what is learnt from, pixels.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = Precision.AUTO,
    tile: TileOption = None,
    stac: StacOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Take the noise off a video or a burst; it comes back as what it was."""
    from l1bsr_geo.pipelines.denoise_job import DenoiseJob
    from l1bsr_geo.pipelines.denoising import run_denoising

    job = DenoiseJob(
        source=source,
        output=out,
        method=method.value,
        mode=None if mode is None else mode.value,
        teacher=teacher,
        noise=read_noise(noise),
        frames=read_frames(frames),
        bands_per_frame=bands_per_frame,
        camera=camera,
        pattern=pattern.value,
        truth=truth,
        weights=weights,
        iterations=iterations,
        crop=crop,
        seed=seed,
        device=device.value,
        precision=precision.value,
        tile=tile,
        stac=stac,
        resume=resume,
        overwrite=overwrite,
    )
    with show_steps() as progress:
        done = run_denoising(job, progress)
    print(done.result)
    _say_noise("noise of single frames", done.noise)
    _say_noise("noise that was taken off", done.taken_off)
    if done.psnr is not None:
        print(f"PSNR {done.psnr[1]:.2f} dB, of the input {done.psnr[0]:.2f} dB")
    if len(done.shots) > 1:
        cuts = ", ".join(str(shot.start) for shot in done.shots[1:])
        print(f"{len(done.shots)} shots; cuts before frames {cuts}")


def read_noise(text: str) -> "str | float | tuple[float, float]":
    """``auto``, a standard deviation, or ``a,b``.

    Raises:
        BadOptionError: something else.
    """
    if text == "auto":
        return "auto"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 2:
        return numbers[0], numbers[1]
    raise BadOptionError(
        f"--noise {text}: auto, a standard deviation, or a,b of var = a x + b was expected"
    )


def read_frames(text: str | None) -> slice | None:
    """``FIRST:END``, ``FIRST:END:STEP``, or how many from the first.

    Raises:
        BadOptionError: something else.
    """
    if text is None:
        return None
    try:
        numbers = [int(part) if part else None for part in text.split(":")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or any(n is not None and n < 0 for n in numbers):
        raise BadOptionError(
            f"--frames {text}: FIRST:END, FIRST:END:STEP or a number was expected, such as 10:50"
        )
    return slice(*numbers)


def _say_noise(what: str, noise: "Noise | None") -> None:
    if noise is not None:
        print(f"{what}: variance = {noise.a:.4g} x + {noise.b:.4g} [DN^2]")
