"""Denoising videos: whatever the input is, the same kind of video with less noise."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

import l1bsr_geo
from l1bsr_geo.errors import BadInputError
from l1bsr_geo.georef.parts import open_parts
from l1bsr_geo.images.videos import Video
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.registry import Model
from l1bsr_geo.ops.mosaic import sample_mosaic
from l1bsr_geo.pipelines.denoise_job import Denoised, DenoiseJob, Progress
from l1bsr_geo.pipelines.denoise_methods import Work, least_frames, load_network, restore
from l1bsr_geo.pipelines.denoise_output import Target, choose_target
from l1bsr_geo.pipelines.frame_items import add_frame_items, check_frame_items
from l1bsr_geo.pipelines.job import PathLike
from l1bsr_geo.readers.videos import read_video
from l1bsr_geo.restoration.noise_level import Noise, estimate_from_residuals, part_mosaic
from l1bsr_geo.restoration.sequence import ScaledVideo
from l1bsr_geo.restoration.survey import Survey, survey_video
from l1bsr_geo.restoration.told_noise import settle_noise

log = logging.getLogger(__name__)

_LOOKS = 6  # frames that tell what was taken off


def denoise(
    source: PathLike | xr.DataArray,
    output: PathLike | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Path | xr.DataArray:
    """Take the noise off a video, by what the video itself tells of it.

    Args:
        source: video file, folder of frames, GeoTIFF whose bands are times, SkySat burst, or a
            DataArray (time, band, y, x) or (time, y, x).
        output: of the same kind. Where None the result is a DataArray.
        progress: called with "learning" or "restoring", how much is done, of how much, and figures.
        **options: what `DenoiseJob` lists: method, mode, teacher, noise, frames ...

    Returns:
        The path written, or the result: of a DataArray, with its coordinates, attributes and CRS.

    Raises:
        L1bsrGeoError: what a user can cause and mend; nothing is left under ``output``.
    """
    done = run_denoising(DenoiseJob(source=source, output=output, **options), progress)
    return done.result


def run_denoising(job: DenoiseJob, progress: Progress | None = None) -> Denoised:
    """`denoise`, with all that is known afterwards.

    Raises:
        L1bsrGeoError: as `denoise`.
    """
    video = read_video(
        job.source, job.frames, bands_per_frame=job.bands_per_frame, camera=job.camera
    )
    target = choose_target(job, video)
    check_frame_items(target)
    truth = None
    if job.truth is not None:
        truth = read_video(job.truth, job.frames, bands_per_frame=job.bands_per_frame)
        _check_truth(truth, video)
    network, start = load_network(job, len(video.bands))
    check_frames(job, network, video.frames)
    survey = survey_video(video, mosaic=job.method == "m2m")
    log.info("%d shots, white at %g DN, noise %s", len(survey.shots), survey.white, survey.noise)
    with ExitStack() as stack:
        if target.path is None:
            place, made_of = Path(stack.enter_context(tempfile.TemporaryDirectory())), {}
        else:
            made_of = {**job.say(), "start": start}
            place = stack.enter_context(open_parts(target.path, made_of, resume=job.resume)).folder
        told = _choose_noise(job, video, network, survey)
        run = _Run(job, video, truth, network, start, survey, told, target, place)
        psnr = run.restore_all(progress)
        taken_off = run.look_at_residuals()
        tags = _say(job, survey, taken_off)
        result = target.finish(place, tags)
    add_frame_items(target)
    return Denoised(result, survey.noise, taken_off, told, survey.shots, psnr)


def check_frames(job: DenoiseJob, network: Restorer, frames: int) -> None:
    """Refuse a video that is too short for a method.

    Raises:
        BadInputError: as said.
    """
    least = least_frames(job, network)
    if frames < least:
        raise BadInputError(f"the video has {frames} frames; {job.method} needs {least} at least")


@dataclass(frozen=True)
class _Run:
    """One run: restored frames wait in a folder until all are there."""

    job: DenoiseJob
    video: Video
    truth: Video | None
    network: Restorer
    start: str
    survey: Survey
    told: Noise | None
    target: Target
    folder: Path

    def restore_all(self, progress: Progress | None) -> tuple[float, float] | None:
        """Restore what is not there yet; the mean PSNR of noisy and restored, where truth is."""
        total = self.video.frames
        first = next((t for t in range(total) if not self.target.has(self.folder, t)), total)
        found = _Psnr(self.survey.white)
        for t in range(first):
            found.add(self.truth, self.video, t, self.target.load(self.folder, t))
        for t, frame in self._restore_from(first, progress):
            self.target.keep(self.folder, t, frame)
            found.add(self.truth, self.video, t, frame)
            if progress is not None:
                progress("restoring", t + 1, total, found.figures())
        missing = [t for t in range(total) if not self.target.has(self.folder, t)]
        if missing:
            raise AssertionError(f"frames {missing} were never restored")
        return found.means()

    def _restore_from(
        self, first: int, progress: Progress | None
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        factor = self.network.spec.gain / self.survey.white

        def learning(done: int, total: int, figures: Mapping[str, float]) -> None:
            if progress is not None:
                progress("learning", done, total, figures)

        work = Work(
            self.job,
            ScaledVideo(self.video, factor),
            self.survey.shots,
            self.network,
            self.start,
            None if self.told is None else self.told.scale(factor),
            self.folder / "learning",
            first,
            learning,
        )
        if first < self.video.frames:
            for t, frame in restore(work):
                yield t, frame / np.float32(factor)

    def look_at_residuals(self) -> Noise:
        """The noise that was taken off."""
        chosen = np.unique(np.linspace(0, self.video.frames - 1, _LOOKS).round().astype(int))
        return estimate_from_residuals(self._compare(int(t)) for t in chosen)

    def _compare(self, t: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """A frame, and what it would be without what was taken off."""
        noisy, restored = self.video.read(t), self.target.load(self.folder, t).astype(np.float32)
        if self.job.method != "m2m":
            return noisy, restored
        seen = sample_mosaic(torch.from_numpy(restored)[None], self.job.pattern)[0].numpy()
        return part_mosaic(noisy), part_mosaic(seen)


def _choose_noise(job: DenoiseJob, video: Video, network: Restorer, survey: Survey) -> Noise | None:
    """What the network is told of the noise [DN], or None for what is usual for it.

    A network that is tuned begins with what is usual, as published, unless the user knows better.
    """
    if job.noise != "auto":
        return job.known_noise
    if job.method != "fastdvdnet" or survey.noise is None:
        return None
    factor = network.spec.gain / survey.white
    model = Model.from_restorer(network, job.device, job.precision)
    scaled = ScaledVideo(video, factor)
    noise = settle_noise(model, scaled, survey.shots, survey.noise.scale(factor))
    return noise.scale(1 / factor)


class _Psnr:
    """Mean PSNR [dB] over frames, of noisy and restored."""

    def __init__(self, peak: float) -> None:
        self._peak = peak
        self._found: list[tuple[float, float]] = []

    def add(self, truth: Video | None, noisy: Video, t: int, frame: npt.NDArray[Any]) -> None:
        """Compare a frame, where there is truth."""
        if truth is None:
            return
        clean = truth.read(t)
        seen = noisy.read(t)
        before = self._measure(seen, clean) if seen.shape == clean.shape else float("nan")
        self._found.append((before, self._measure(frame, clean)))

    def _measure(self, frame: npt.NDArray[Any], clean: npt.NDArray[np.float32]) -> float:
        error = float(np.nanmean((frame.astype(np.float64) - clean) ** 2))
        return float(10 * np.log10(self._peak**2 / max(error, 1e-12)))

    def means(self) -> tuple[float, float] | None:
        """Of noisy and restored frames."""
        if not self._found:
            return None
        noisy, restored = np.mean(self._found, 0)
        return float(noisy), float(restored)

    def figures(self) -> dict[str, float]:
        """The same for a progress bar."""
        means = self.means()
        return {} if means is None else {"psnr_noisy": means[0], "psnr": means[1]}


def _check_truth(truth: Video, video: Video) -> None:
    if (truth.frames, truth.shape) != (video.frames, video.shape):
        raise BadInputError(
            f"the truth has {truth.frames} frames of {truth.shape[0]} x {truth.shape[1]} px, the "
            f"video {video.frames} of {video.shape[0]} x {video.shape[1]}; the same was expected"
        )


def _say(job: DenoiseJob, survey: Survey, taken_off: Noise) -> dict[str, str]:
    """What denoised the frames, as tags."""
    tags = {
        "denoised_by": f"l1bsr_geo {l1bsr_geo.__version__}",
        "denoise_method": job.method,
        "denoise_white": f"{survey.white:g}",
    }
    if job.method in ("mf2f", "f2f"):
        tags["denoise_mode"] = job.mode or "online"
    for name, noise in (("noise_of_frames", survey.noise), ("noise_taken_off", taken_off)):
        if noise is not None:
            tags[name] = f"a {noise.a:.5g}, b {noise.b:.5g}"
    return tags
