"""Model: one of the models as the rest of the package runs it."""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.base import (
    BurstRestorer,
    EncodingRestorer,
    ModelSpec,
    Restorer,
    SceneRestorer,
    SequenceRestorer,
    Statistics,
)
from l1bsr_geo.models.devices import Device, Pixels, find_slots, pick_device, stage
from l1bsr_geo.models.ensemble import Ensemble
from l1bsr_geo.models.entries import MODELS, find_entry
from l1bsr_geo.models.loading import Identity, load_once
from l1bsr_geo.models.model_file import ModelFile
from l1bsr_geo.models.origins import Exported, Origin, find_registered, take_own
from l1bsr_geo.models.precision import Precision, computing, takes_bf16
from l1bsr_geo.models.receptive_field import probe_halo
from l1bsr_geo.models.view_checks import check_result, check_sequence, check_views

__all__ = ["MODELS", "Device", "Model", "Precision", "find_entry"]

_AT_A_TIME = 1 << 18  # px of single frames that are restored together


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
        precision: ``"bf16"`` runs convolutions in half the bits; ``"auto"`` is ``"fp32"`` until
            ``tiling.precision.settle_precision`` has looked at the scene. What is no network, or
            finds motion, is always ``"fp32"``.
        scale: fine pixels to a pixel; where None that of the weights, or else the model's usual
            one.

    Attributes:
        spec: what the rest of the package must know.
        weights_sha256: hash of the weights file, or of a restorer of one's own
            (``identity.hash_restorer``); None where nothing is trained.
        licence: SPDX name of the weights' licence, or None where none is known.
        device: as asked for.
        precision: as above.

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
        _check_options(device, precision)
        origin, made = find_registered(name, weights, scale)
        self._set_up(origin, made.spec, takes_bf16(made), device, precision)
        self._load(self.torch_device)  # what is wrong with weights is said before any work

    @classmethod
    def from_restorer(
        cls, restorer: Restorer, device: Device = "auto", precision: Precision = "auto"
    ) -> "Model":
        """Any restorer as a Model: a copy of it, which then travels whole when pickled.

        It is made ready once in each process, however often it arrives there. A plain network of
        single images becomes a restorer by ``models.single_image.SingleImage``.
        """
        _check_options(device, precision)
        model = cls.__new__(cls)
        own = take_own(restorer)
        model._set_up(own, restorer.spec, takes_bf16(restorer), device, precision)
        return model

    @classmethod
    def from_file(
        cls, path: str | Path, device: Device = "auto", precision: Precision = "auto"
    ) -> "Model":
        """A network that was exported: ONNX, a program of ``torch.export``, or the spec of one.

        The spec, in YAML, says what the file itself does not. Nothing in a file is run as code.
        It computes in float32, and it travels as its path and its hash: other machines must see it
        there.

        Args:
            path: ending in .onnx, .pt2, .yaml or .yml.
            device: as for a name.
            precision: as for a name, but it stays ``"fp32"``.

        Raises:
            L1bsrGeoError: there is no such file, it cannot be run, or it is not what it says.
        """
        _check_options(device, precision)
        model = cls.__new__(cls)
        with find_slots(pick_device(device)).take() as slot, slot.launch(), torch.inference_mode():
            file = ModelFile.read(path, slot.device)
        model._set_up(Exported(file), file.spec, False, device, precision)
        return model

    @property
    def torch_device(self) -> torch.device:
        """The device in this process."""
        return pick_device(self.device)

    @property
    def identity(self) -> Identity:
        """What tells it from other models, whatever device and precision it runs in."""
        spread = self._ensemble.method if self._ensemble else None
        return self._origin.identity._replace(spread=spread)

    @property
    def facts(self) -> str | None:
        """What was told of a model file, as JSON; None where the model came by name or as a module.

        With the hash of the file it says which pixels the model makes.
        """
        return self._origin.facts

    def at_precision(self, precision: Precision) -> "Model":
        """The same model at another precision; what is always fp32 stays so."""
        _check_options(self.device, precision)
        model = copy.copy(self)
        model.precision = precision if self._takes_bf16 else "fp32"
        return model

    def spread(self, ensemble: Ensemble) -> "Model":
        """A model whose results are the uncertainty of this one's.

        It loads the same restorer, once for both.

        Args:
            ensemble: what the spread is made of.
        """
        model = copy.copy(self)
        model._ensemble = ensemble
        model.spec = ensemble.spec_of(self.spec)
        return model

    def restore(
        self,
        views: Pixels,
        flow: Pixels | None = None,
        statistics: Statistics | None = None,
        exposures: Pixels | None = None,
    ) -> Pixels:
        """Restore a batch; so many at a time run on a device as it has slots, whoever calls.

        Args:
            views: (B, T, C, H, W) [DN], any size: it is padded to ``spec.multiple``.
                Where ``spec.exposures``, later frames are NaN where they have no data.
            flow: (B, T, C, 2, H, W) [px], used where ``spec.flow``; None is no motion.
            statistics: of the scene, where ``spec.scene_statistics``; None pools over each image.
            exposures: (B, T) in any unit, used where ``spec.exposures``; None where they are alike.

        Returns:
            (B, C, scale * H, scale * W) [DN at the exposure of the first frame].

        Raises:
            BadInputError: bands, frames or shapes that the model does not take.
        """
        check_views(self.spec, views, flow, exposures)

        def run(restorer: Restorer, x: Tensor, motion: Tensor | None, times: Tensor | None) -> Any:
            if statistics and self.spec.scene_statistics:
                frozen = {k: torch.as_tensor(v, device=x.device) for k, v in statistics.items()}
                return cast("SceneRestorer", restorer)(x, motion, frozen)
            if self.spec.exposures:
                return cast("BurstRestorer", restorer)(x, motion, exposures=times)
            return restorer(x, motion)

        return self._compute(run, views, *self._used(flow, exposures))

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
        check_views(self.spec, views, flow, exposures)
        wrong = [r for r in references if not 0 <= r < views.shape[1]]
        if wrong:
            raise BadOptionError(f"there is no frame {wrong[0]} in a burst of {views.shape[1]}")

        def run(restorer: Restorer, x: Tensor, motion: Tensor | None, times: Tensor | None) -> Any:
            if not isinstance(restorer, EncodingRestorer):
                raise BadOptionError(
                    f"{self.spec.name} does not encode frames by themselves; restore each reference"
                )
            return restorer.restore_references(x, motion, references, exposures=times)

        return self._compute(run, views, *self._used(flow, exposures))

    def restore_sequence(self, frames: Pixels, noise: Pixels | float | None = None) -> Pixels:
        """Restore every frame of a video, each with the help of its neighbours.

        Work that neighbours share is done once. Models of single frames restore frame by frame,
        and are told no noise.

        Args:
            frames: (N, C, H, W) [DN], in order of time; mirrored beyond the ends.
            noise: standard deviation [DN], one number or (N, 1, H, W), where any axis may be 1;
                what is usual for the model where None.

        Returns:
            (N, C, scale * H, scale * W) [DN].

        Raises:
            BadInputError: bands or shapes that the model does not take.
            BadOptionError: the model restores bursts, whose first frame is the reference.
        """
        told = check_sequence(self.spec, frames, noise)
        if self.spec.frames[1] == 1:
            count = max(1, _AT_A_TIME // (frames.shape[-2] * frames.shape[-1]))
            parts = range(0, len(frames), count)
            return np.concatenate([self.restore(frames[t : t + count, None]) for t in parts])

        def run(restorer: Restorer, x: Tensor, level: Tensor | None, _: Tensor | None) -> Any:
            if not isinstance(restorer, SequenceRestorer):
                raise BadOptionError(
                    f"{self.spec.name} restores the first frame of a burst, not a video; take "
                    "`restore_references`"
                )
            level = None if level is None else level / self.spec.gain
            return restorer.restore_sequence(x[:, 0], level)

        return self._compute(run, frames[:, None], told, None)

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
            check_views(self.spec, views, None)
            pixels = views.shape[0] * views.shape[-2] * views.shape[-1]
            count += pixels
            for name, value in self._pool(views).items():
                total[name] = total.get(name, np.float64(0)) + pixels * value
        if not count:
            raise BadInputError(f"{self.spec.name}: scene statistics of no sample at all")
        return {name: value / count for name, value in total.items()}

    def probe_halo(self, tolerance: float = 0.01, bands: int | None = None) -> int:
        """How far the restorer looks [px of the input]; see ``receptive_field.probe_halo``.

        Measured once in each process.

        Args:
            tolerance: what counts as a change [DN].
            bands: how many it is given, where any number will do.
        """
        device = self.torch_device
        key = self.identity, tolerance, bands
        with find_slots(device).take() as slot, slot.launch():
            if key not in _PROBED:
                _PROBED[key] = probe_halo(
                    self._load(device), tolerance=tolerance, device=device, bands=bands
                )
            return _PROBED[key]

    def __repr__(self) -> str:
        return f"Model({self.spec.name!r}, device={self.device!r}, precision={self.precision!r})"

    def _set_up(
        self,
        origin: Origin,
        spec: ModelSpec,
        half_will_do: bool,
        device: Device,
        precision: Precision,
    ) -> None:
        self.spec: ModelSpec = spec
        self.weights_sha256: str | None = origin.identity.weights_sha256
        self.licence: str | None = origin.licence
        self.device: Device = device
        self.precision: Precision = precision if half_will_do else "fp32"
        self._takes_bf16 = half_will_do
        self._origin: Origin = origin
        self._ensemble: Ensemble | None = None

    def _used(
        self, flow: Pixels | None, exposures: Pixels | None
    ) -> tuple[Pixels | None, Pixels | None]:
        """Those of the two that the model takes."""
        return flow if self.spec.flow else None, exposures if self.spec.exposures else None

    def _compute(
        self,
        run: Callable[[Restorer, Tensor, Tensor | None, Tensor | None], Tensor],
        views: Pixels,
        maps: Pixels | None,
        numbers: Pixels | None,
    ) -> Pixels:
        """Views to the device, a result (..., H, W) back: nothing is waited for but the end.

        Maps (..., H, W), such as flow, and numbers of frames go with the views.
        """
        spec, device = self.spec, self.torch_device
        staged = stage(views, spec.multiple, device, spec.padding)
        more = None if maps is None else stage(maps, spec.multiple, device, spec.padding)
        few = None if numbers is None else stage(numbers, 1, device)
        height, width = (spec.scale * n for n in views.shape[-2:])
        with find_slots(device).take() as slot:
            with slot.launch(), torch.inference_mode(), computing(self.precision, device):
                restorer = self._load(device)
                sent = (None if v is None else slot.send(v) for v in (more, few))
                y = run(restorer, slot.send(staged).div_(spec.gain), *sent)
                check_result(spec, staged.shape, y.shape)
                arrival = slot.fetch(y[..., :height, :width].float() * spec.gain)
            return arrival.wait()

    def _pool(self, views: Pixels) -> dict[str, npt.NDArray[np.float64]]:
        """What a scene restorer pools on some views."""
        device = self.torch_device
        staged = stage(views, self.spec.multiple, device, self.spec.padding)
        with (
            find_slots(device).take() as slot,
            slot.launch(),
            torch.inference_mode(),
            computing(self.precision, device),
        ):
            restorer = cast("SceneRestorer", self._load(device))
            pooled = restorer.scene_statistics(slot.send(staged) / self.spec.gain)
            return {name: value.cpu().double().numpy() for name, value in pooled.items()}

    def _load(self, device: torch.device) -> Restorer:
        """The restorer on the device, this process's own where it was loaded before."""
        restorer = load_once(self._origin.identity, device, partial(self._origin.build, device))
        return self._ensemble.of(restorer) if self._ensemble else restorer


_PROBED: dict[tuple[Identity, float, int | None], int] = {}


def _check_options(device: Device, precision: Precision) -> None:
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
