"""The models by name: how each is built, and where its weights are."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from l1bsr_geo.errors import BadOptionError, WeightsError
from l1bsr_geo.models import (
    csr,
    csr_compact,
    dncnn,
    dsa,
    fastdvdnet,
    hdr_dsp,
    highresnet,
    jdd,
    l1bsr,
    rcan,
)
from l1bsr_geo.models.act import ACT
from l1bsr_geo.models.architecture import no_larger_than
from l1bsr_geo.models.base import ModelSpec, Restorer
from l1bsr_geo.models.checkpoint import (
    PublishedWeights,
    check_fits,
    count_tensors,
    read_checkpoint,
    read_facts,
)
from l1bsr_geo.models.classical import Bicubic, Geometric
from l1bsr_geo.models.shift_and_add import ShiftAndAdd


@dataclass(frozen=True)
class Entry:
    """A model.

    Attributes:
        spec: what the rest of the package must know, at the usual scale.
        build: makes it, untrained; takes ``scale=`` where there are several, and what its network
            is made of.
        weights: the published ones, if any.
        network: the submodule of the restorer whose parameters have the published names.
        trainable: whether it needs weights although none are published.
        scales: what it can be built for; the usual one only where empty.
    """

    spec: ModelSpec
    build: Callable[..., Restorer]
    weights: PublishedWeights | None = None
    network: str = ""
    trainable: bool = False
    scales: tuple[int, ...] = ()

    @property
    def takes_weights(self) -> bool:
        """Whether it is of no use without weights."""
        return self.trainable or self.weights is not None

    def unusual(self, scale: int | None) -> int | None:
        """A scale, or None where it is the usual one.

        Raises:
            BadOptionError: there is none at this scale.
        """
        if scale in (None, self.spec.scale):
            return None
        if scale not in self.scales:
            there = ", ".join(map(str, self.scales or (self.spec.scale,)))
            raise BadOptionError(f"{self.spec.name} has no scale {scale}; there is {there}")
        return scale

    def make(self, scale: int | None = None, **architecture: Any) -> Restorer:
        """The restorer, untrained, at a scale; the usual one where None.

        Args:
            scale: fine pixels to a pixel.
            **architecture: of the network; what it takes is the class's own.

        Raises:
            BadOptionError: there is none at this scale.
        """
        scale = self.unusual(scale)
        if scale is None:
            return self.build(**architecture)
        return self.build(scale=scale, **architecture)

    def make_for(self, path: Path, scale: int | None = None) -> Restorer:
        """The restorer, untrained, with the architecture that a weights file says it is for.

        Args:
            path: of weights. Published ones say nothing: they are of the default architecture.
            scale: the file's where None, or the usual one where it says none.

        Raises:
            BadOptionError: there is none at this scale.
            WeightsError: the file says that it is for another model or scale, or for a network
                that cannot be built.
        """
        name = self.spec.name
        scale = scale if scale is None else self.unusual(scale) or self.spec.scale
        facts = read_facts(path)
        said, at, network = (facts.get(key) for key in ("model", "scale", "network"))
        if said not in (None, name):
            raise WeightsError(
                f"{path}: weights of {said}, not of {name}; give {name} its own, or ask for {said}"
            )
        if at is not None and scale is not None and at != str(scale):
            raise WeightsError(
                f"{path}: weights of {name} at scale {at}, but scale {scale} was asked for"
            )
        try:
            architecture = json.loads(network or "{}")
            # without a word of it in the file the network is ours, of the default size
            with no_larger_than(count_tensors(path)) if network else nullcontext():
                restorer = self.make(scale if at is None else int(at), **architecture)
        except Exception as error:  # a file can say anything
            if network is None and at is None:
                raise
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise WeightsError(
                f"{path}: says that it is for a {name} at scale {at} with {str(network)[:200]}, "
                f"which cannot be built: {reason}"
            ) from error
        found = restorer.spec
        if found.name != name or (at is not None and str(found.scale) != at):
            raise WeightsError(
                f"{path}: says that it is for {name} at scale {at}, but its network is "
                f"{found.name} at scale {found.scale}"
            )
        return restorer

    def shapes(self, scale: int | None = None, **architecture: Any) -> dict[str, torch.Size]:
        """The network's parameters, name to shape; costs no memory."""
        with torch.device("meta"):
            return self._shapes_of(self.make(scale, **architecture))

    def shapes_for(self, path: Path, scale: int | None = None) -> dict[str, torch.Size]:
        """The parameters of the network that a weights file says it is for; see ``make_for``."""
        with torch.device("meta"):
            return self._shapes_of(self.make_for(path, scale))

    def load(self, path: Path, scale: int | None = None) -> Restorer:
        """The restorer with the weights of a file; see ``make_for``.

        Raises:
            WeightsError: the file is not this network's.
        """
        shapes = self.shapes_for(path, scale)
        state = read_checkpoint(path, shapes)
        check_fits(state, shapes, f"{path} as weights of {self.spec.name}")
        restorer = self.make_for(path, scale)
        self.trained_part(restorer).load_state_dict(state)
        return restorer

    def _shapes_of(self, restorer: Restorer) -> dict[str, torch.Size]:
        state = self.trained_part(restorer).state_dict()
        return {name: v.shape for name, v in state.items()}

    def trained_part(self, restorer: Restorer) -> nn.Module:
        """The module that the weights are loaded into."""
        return cast("nn.Module", restorer).get_submodule(self.network)


def _published_l1bsr(path: str, git_blob: str) -> PublishedWeights:
    return PublishedWeights(
        repository="centreborelli/L1BSR",
        commit="296a8e8d29ecfe044fe0698cc1726450ab617e44",
        path=path,
        git_blob=git_blob,
        licence="GPL-3.0",
    )


def _published_hdr_dsp(path: str, git_blob: str) -> PublishedWeights:
    return PublishedWeights(
        repository="centreborelli/HDR-DSP-SR",
        commit="c41269212e7405336efa5f3afc330583debcdfda",
        path=path,
        git_blob=git_blob,
        licence=None,
    )


_BOTH = (2, 3)

MODELS: dict[str, Entry] = {
    "geometric": Entry(Geometric().spec, Geometric),
    "bicubic": Entry(Bicubic().spec, Bicubic, scales=_BOTH),
    "shift-and-add": Entry(ShiftAndAdd().spec, ShiftAndAdd, scales=_BOTH),
    "act": Entry(ACT().spec, ACT, scales=_BOTH),
    "l1bsr": Entry(l1bsr.make_spec(), l1bsr.L1BSR, trainable=True),
    "l1bsr-rcan": Entry(
        rcan.SPEC,
        rcan.REC,
        _published_l1bsr(
            "trained_models/REC_Real_L1B.pt", "55a5e01bb70fd7e34a29d09494013c6a79c7770b"
        ),
    ),
    "csr": Entry(
        csr_compact.SPEC, csr_compact.CompactBandRegistration, network="network", trainable=True
    ),
    "csr-hourglass": Entry(
        csr.SPEC,
        csr.BandRegistration,
        _published_l1bsr(
            "trained_models/CSR_Real_L1B.pth.tar", "17edadc1a1327e47f6f3e87ef84ebfa66c580463"
        ),
        network="network",
    ),
    "dsa": Entry(dsa.make_spec(), dsa.DSA, trainable=True, scales=_BOTH),
    "hdr-dsp": Entry(
        hdr_dsp.make_spec(),
        hdr_dsp.HDRDSP,
        _published_hdr_dsp("checkpoint.pth.tar", "c20268a321ea2ec220816a013389e4f8f7840806"),
        scales=_BOTH,
    ),
    "hdr-dsp-synthetic": Entry(
        hdr_dsp.make_spec("hdr-dsp-synthetic"),
        partial(hdr_dsp.HDRDSP, name="hdr-dsp-synthetic"),
        _published_hdr_dsp(
            "syntheticPretrainedModel/Model_ME.pth.tar", "58ed3fe0de32dced3ef5e8304a5e4bfedd13a654"
        ),
        scales=_BOTH,
    ),
    "hdr-dsp-single": Entry(
        hdr_dsp.make_spec("hdr-dsp-single"),
        hdr_dsp.HDRDSPSingle,
        _published_hdr_dsp(
            "syntheticPretrainedModel/Model_SE.pth.tar", "580a621aa0b72badb43d9bc1d75f3f7d2cc71fbc"
        ),
        scales=_BOTH,
    ),
    "fnet": Entry(
        hdr_dsp.FrameRegistration.spec,
        hdr_dsp.FrameRegistration,
        _published_hdr_dsp("pretrained_Fnet.pth.tar", "9770844cb96b6702a0dd7b63ef3a11bbaeb308f9"),
        network="network",
    ),
    "highres-net": Entry(
        highresnet.make_spec(), highresnet.HighResNet, trainable=True, scales=_BOTH
    ),
    "dncnn": Entry(dncnn.make_spec(), dncnn.DnCNN, trainable=True),
    "dncnn-pan": Entry(
        dncnn.make_spec("dncnn-pan", channels=1),
        partial(dncnn.DnCNN, channels=1, name="dncnn-pan"),
        trainable=True,
    ),
    "fastdvdnet": Entry(
        fastdvdnet.make_spec(),
        fastdvdnet.FastDVDnet,
        PublishedWeights(
            repository="m-tassano/fastdvdnet",
            commit="c8fdf6182a0340e89dd18f5df25b47337cbede6f",
            path="model.pth",
            git_blob="001d08c260a2cde36b0c023e251e6be97f9f48dc",
            licence="MIT",
        ),
    ),
    "fastdvdnet-pan": Entry(
        fastdvdnet.make_spec("fastdvdnet-pan", channels=1),
        partial(fastdvdnet.FastDVDnet, channels=1, name="fastdvdnet-pan"),
        trainable=True,
    ),
    "fastdvdnet-mf2f": Entry(
        fastdvdnet.make_spec("fastdvdnet-mf2f"),
        partial(fastdvdnet.FastDVDnet, bias=True, name="fastdvdnet-mf2f"),
        PublishedWeights(
            repository="centreborelli/mf2f",
            commit="c28d40a1cc7d1851622f946f7afb6fa6d1810ab9",
            path="model/model.pth",
            git_blob="0e6c634f28641d31fee3c8d1ce8c3166d73c8123",
            licence=None,
        ),
    ),
    "jdd": Entry(jdd.make_spec(), jdd.JDD, trainable=True),
}
"""Model name to entry; ``geometric`` is the default."""


def find_entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        BadOptionError: there is none.
    """
    if name not in MODELS:
        raise BadOptionError(
            f"there is no model {name!r}; there are {', '.join(MODELS)}, and files that end in "
            ".onnx, .pt2 or .yaml"
        )
    return MODELS[name]
