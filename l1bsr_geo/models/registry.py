"""Model: one of the models as the rest of the package runs it."""

import copy
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from l1bsr_geo.errors import BadInputError, BadOptionError, WeightsError
from l1bsr_geo.models.base import (
    BurstRestorer,
    EncodingRestorer,
    ModelSpec,
    Restorer,
    SceneRestorer,
    Statistics,
)
from l1bsr_geo.models.checkpoint import find_weights, hash_file, read_provenance
from l1bsr_geo.models.entries import MODELS, find_entry
from l1bsr_geo.models.receptive_field import probe_halo

__all__ = ["MODELS", "Model", "find_entry"]

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
Pixels: TypeAlias = npt.NDArray[np.float32]


class Model:
    """A restorer, run from numpy to numpy.

    It pickles in a few bytes: weights are read once in each process, and checked against the hash
    that was taken where the model was made.

    Args:
        name: in ``MODELS``.
        weights: a file: ours (safetensors), which says how its network is built, or a published
            checkpoint as downloaded. Where None, the cached ones (``fetch``, ``import_weights``),
            else those that come with the package.
        device: ``"auto"`` takes a GPU where there is one.
        precision: ``"bf16"`` runs convolutions in half the bits; ``"auto"`` is ``"fp32"``, because
            bf16 costs REC more than 1 DN rms (with random weights and a result of 100 DN rms).
        scale: fine pixels to a pixel; where None that of the weights, or else the model's usual
            one.

    Attributes:
        spec: what the rest of the package must know.
        weights_sha256: hash of the weights file, or None where nothing is trained.
        licence: SPDX name of the weights' licence, or None where none is known.

    Raises:
        BadOptionError: a name, scale, device or precision that is not to be had.
        MissingInputError: there are no weights; says how to get them.
        WeightsError: the weights are not this network's.
    """

    def __init__(
        self,
        name: str = "geometric",
        weights: str | Path | None = None,
        device: Device = "auto",
        precision: Precision = "auto",
        scale: int | None = None,
    ) -> None:
        entry = find_entry(name)
        unusual = entry.unusual(scale)
        self.weights_sha256: str | None = None
        self.licence: str | None = None
        self._name: str | None = name
        self._path: Path | None = None
        self._restorer: Restorer | None = None
        self._set_options(device, precision)
        if weights is not None and not entry.takes_weights:
            raise BadOptionError(f"{name} is not trained: it takes no weights, but got {weights}")
        if entry.takes_weights:
            self._path = find_weights(name, weights, entry.weights, unusual).absolute()
            self.weights_sha256 = hash_file(self._path)
            self.licence = read_provenance(self._path, entry.weights).get("licence")
        with torch.device("meta"):  # costs nothing
            made = entry.make_for(self._path, scale) if self._path else entry.make(scale)
        self.spec: ModelSpec = made.spec
        with _lock(self.torch_device):  # what is wrong with weights is said before any work
            self._load(self.torch_device)

    @classmethod
    def from_restorer(
        cls, restorer: Restorer, device: Device = "auto", precision: Precision = "auto"
    ) -> "Model":
        """Any restorer as a Model: a copy of it, which then travels whole when pickled."""
        model = cls.__new__(cls)
        model.spec, model.weights_sha256, model.licence = restorer.spec, None, None
        model._name = model._path = None
        model._set_options(device, precision)
        model._restorer = copy.deepcopy(restorer)
        return model

    @property
    def torch_device(self) -> torch.device:
        """The device in this process."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def restore(
        self,
        views: Pixels,
        flow: Pixels | None = None,
        statistics: Statistics | None = None,
        exposures: Pixels | None = None,
    ) -> Pixels:
        """Restore a batch; one at a time runs on a device, whoever calls.

        Args:
            views: (B, T, C, H, W) [DN], any size: it is padded by its edge to ``spec.multiple``.
                Where ``spec.exposures``, later frames are NaN where they have no data.
            flow: (B, T, C, 2, H, W) [px], used where ``spec.flow``; None is no motion.
            statistics: of the scene, where ``spec.scene_statistics``; None pools over each image.
            exposures: (B, T) in any unit, used where ``spec.exposures``; None where they are alike.

        Returns:
            (B, C, scale * H, scale * W) [DN at the exposure of the first frame].

        Raises:
            BadInputError: bands, frames or shapes that the model does not take.
        """
        self._check(views, flow, exposures)
        device = self.torch_device
        with _lock(device), torch.inference_mode(), self._autocast(device):
            restorer = self._load(device)
            x, motion, times = self._inputs(views, flow, exposures, device)
            if statistics and self.spec.scene_statistics:
                frozen = {k: torch.as_tensor(v, device=device) for k, v in statistics.items()}
                y = cast("SceneRestorer", restorer)(x, motion, frozen)
            elif self.spec.exposures:
                y = cast("BurstRestorer", restorer)(x, motion, exposures=times)
            else:
                y = restorer(x, motion)
            return self._output(y, views)

    def restore_references(
        self,
        views: Pixels,
        flow: Pixels | None,
        references: Sequence[int],
        exposures: Pixels | None = None,
    ) -> Pixels:
        """Restore several frames of a burst, each with the help of all: a video, made finer.

        Where the model encodes frames, it encodes each once for all references.

        Args:
            views: (B, T, C, H, W) [DN].
            flow: (B, T, C, 2, H, W) [px], against the first frame.
            references: which frames to restore.
            exposures: (B, T).

        Returns:
            (R, B, C, scale * H, scale * W) [DN at the exposure of the first frame], each on the
            zoomed grid of its reference.

        Raises:
            BadInputError: as ``restore``.
            BadOptionError: the model does not encode frames, or there is no such reference.
        """
        self._check(views, flow, exposures)
        wrong = [r for r in references if not 0 <= r < views.shape[1]]
        if wrong:
            raise BadOptionError(f"there is no frame {wrong[0]} in a burst of {views.shape[1]}")
        device = self.torch_device
        with _lock(device), torch.inference_mode(), self._autocast(device):
            restorer = self._load(device)
            if not isinstance(restorer, EncodingRestorer):
                raise BadOptionError(
                    f"{self.spec.name} does not encode frames by themselves; restore each reference"
                )
            x, motion, times = self._inputs(views, flow, exposures, device)
            y = restorer.restore_references(x, motion, references, exposures=times)
            return self._output(y, views)

    def scene_statistics(self, views_list: Iterable[Pixels]) -> Statistics:
        """What the model pools over a scene, averaged over samples of it by their pixels.

        Args:
            views_list: samples (B, T, C, H, W) [DN], of one size or several.

        Returns:
            To be given to ``restore``; empty where the model does not pool.
        """
        if not self.spec.scene_statistics:
            return {}
        total: dict[str, npt.NDArray[np.float64]] = {}
        count = 0
        for views in views_list:
            self._check(views, None)
            pixels = views.shape[0] * views.shape[-2] * views.shape[-1]
            count += pixels
            for name, value in self._statistics(views).items():
                total[name] = total.get(name, np.float64(0)) + pixels * value.cpu().double().numpy()
        if not count:
            raise BadInputError(f"{self.spec.name}: scene statistics of no sample at all")
        return {name: value / count for name, value in total.items()}

    def probe_halo(self, tolerance: float = 0.01) -> int:
        """How far the restorer looks [px of the input]; see ``receptive_field.probe_halo``.

        Measured once in each process for a model by name.
        """
        device = self.torch_device
        key = (self._name, self.weights_sha256, self.spec.scale, tolerance)
        with _lock(device):
            if self._name is None or key not in _PROBED:
                _PROBED[key] = probe_halo(self._load(device), tolerance=tolerance, device=device)
            return _PROBED[key]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_ready"}

    def __repr__(self) -> str:
        return f"Model({self.spec.name!r}, device={self.device!r}, precision={self.precision!r})"

    def _statistics(self, views: Pixels) -> dict[str, Tensor]:
        device = self.torch_device
        with _lock(device), torch.inference_mode(), self._autocast(device):
            restorer = cast("SceneRestorer", self._load(device))
            return restorer.scene_statistics(self._tensor(views, device) / self.spec.gain)

    def _set_options(self, device: Device, precision: Precision) -> None:
        for what, value, choices in (
            ("device", device, get_args(Device)),
            ("precision", precision, get_args(Precision)),
        ):
            if value not in choices:
                raise BadOptionError(f"{what} is {value!r}; it must be one of {', '.join(choices)}")
        if device == "cuda" and not torch.cuda.is_available():
            raise BadOptionError(
                "device is cuda, but torch finds no GPU here; use auto or cpu, or install a CUDA "
                "build of torch"
            )
        self.device, self.precision = device, precision

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def _inputs(
        self, views: Pixels, flow: Pixels | None, exposures: Pixels | None, device: torch.device
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x = self._tensor(views, device).div_(self.spec.gain)
        motion = None if flow is None or not self.spec.flow else self._tensor(flow, device)
        if exposures is None or not self.spec.exposures:
            return x, motion, None
        return x, motion, torch.from_numpy(np.array(exposures, np.float32)).to(device)

    def _output(self, fine: Tensor, views: Pixels) -> Pixels:
        height, width = (self.spec.scale * n for n in views.shape[-2:])
        fine = fine[..., :height, :width].float() * self.spec.gain
        return cast("Pixels", fine.cpu().contiguous().numpy())

    def _tensor(self, array: Pixels, device: torch.device) -> Tensor:
        below, right = (-n % self.spec.multiple for n in array.shape[-2:])
        width = [(0, 0)] * (array.ndim - 2) + [(0, below), (0, right)]
        padded = np.pad(np.asarray(array, np.float32), width, mode="edge")
        return torch.from_numpy(padded).to(device)

    def _check(self, views: Pixels, flow: Pixels | None, exposures: Pixels | None = None) -> None:
        spec = self.spec
        if views.ndim != 5 or 0 in views.shape:
            raise BadInputError(
                f"{spec.name} takes views (batch, frame, band, row, column); got {views.shape}"
            )
        frames, bands = views.shape[1:3]
        if not spec.frames[0] <= frames <= spec.frames[1]:
            raise BadInputError(
                f"{spec.name} takes {spec.frames[0]} to {spec.frames[1]} frames; got {frames}"
            )
        if spec.bands is not None and bands != len(spec.bands):
            raise BadInputError(
                f"{spec.name} takes {len(spec.bands)} bands ({', '.join(spec.bands)}); got {bands}"
            )
        if flow is not None and flow.shape != (*views.shape[:3], 2, *views.shape[3:]):
            raise BadInputError(
                f"{spec.name}: the flow of views {views.shape} has shape {flow.shape}"
            )
        if exposures is None or not spec.exposures:
            return
        if exposures.shape != views.shape[:2] or not (exposures > 0).all():
            raise BadInputError(
                f"{spec.name} takes an exposure above zero for each of {views.shape[0]} x "
                f"{frames} frames; got {np.array2string(np.asarray(exposures), threshold=8)}"
            )

    def _load(self, device: torch.device) -> Restorer:
        """The restorer on the device, from this process's own where it was loaded before."""
        if self._restorer is not None:
            if getattr(self, "_ready", None) is None:
                self._ready = _prepare(copy.deepcopy(self._restorer), device)
            return self._ready
        key = (cast("str", self._name), self.weights_sha256, self.spec.scale, device)
        if key not in _LOADED:
            _LOADED[key] = _prepare(self._build(), device)
        return _LOADED[key]

    def _build(self) -> Restorer:
        entry = find_entry(cast("str", self._name))
        if self._path is None:
            return entry.make(self.spec.scale)
        if hash_file(self._path) != self.weights_sha256:
            raise WeightsError(f"{self._path}: changed since the model was made of it")
        return entry.load(self._path, self.spec.scale)


_LOADED: dict[tuple[str, str | None, int, torch.device], Restorer] = {}
_PROBED: dict[tuple[str | None, str | None, int, float], int] = {}
_LOCKS: dict[torch.device, threading.RLock] = {}


def _lock(device: torch.device) -> threading.RLock:
    # setdefault is one step: two threads never get two locks
    return _LOCKS.setdefault(device, threading.RLock())


def _prepare(restorer: Restorer, device: torch.device) -> Restorer:
    if isinstance(restorer, nn.Module):
        restorer.requires_grad_(False)
        # convolutions are a quarter faster with the channels last, measured with REC on a CPU
        cast("Any", restorer.eval().to(device)).to(memory_format=torch.channels_last)
    return restorer
