"""The models by name: how each is built, and where its weights are."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models import csr, dsa, hdr_dsp, highresnet, l1bsr
from l1bsr_geo.models.act import ACT
from l1bsr_geo.models.base import ModelSpec, Restorer
from l1bsr_geo.models.checkpoint import PublishedWeights
from l1bsr_geo.models.classical import Bicubic, Geometric
from l1bsr_geo.models.shift_and_add import ShiftAndAdd


@dataclass(frozen=True)
class Entry:
    """A model.

    Attributes:
        spec: what the rest of the package must know, at the usual scale.
        build: makes it, untrained; takes ``scale=`` where there are several.
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

    def make(self, scale: int | None = None) -> Restorer:
        """The restorer, untrained, at a scale; the usual one where None.

        Raises:
            BadOptionError: there is none at this scale.
        """
        if scale in (None, self.spec.scale):
            return self.build()
        if scale not in self.scales:
            there = ", ".join(map(str, self.scales or (self.spec.scale,)))
            raise BadOptionError(f"{self.spec.name} has no scale {scale}; there is {there}")
        return self.build(scale=scale)

    def shapes(self) -> dict[str, torch.Size]:
        """The network's parameters, name to shape; costs no memory."""
        with torch.device("meta"):
            network = self.trained_part(self.build())
        return {name: v.shape for name, v in network.state_dict().items()}

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
    "l1bsr": Entry(
        l1bsr.SPEC,
        l1bsr.REC,
        _published_l1bsr(
            "trained_models/REC_Real_L1B.pt", "55a5e01bb70fd7e34a29d09494013c6a79c7770b"
        ),
    ),
    "csr": Entry(
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
}
"""Model name to entry; ``geometric`` is the default."""


def find_entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        BadOptionError: there is none.
    """
    if name not in MODELS:
        raise BadOptionError(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]
