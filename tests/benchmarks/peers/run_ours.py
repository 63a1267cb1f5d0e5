"""One run of ours: INPUT OUTPUT NETWORK OPTIONS (JSON)."""

import json
import sys

import torch
from networks import BODIES, make_network

import l1bsr_geo
from l1bsr_geo.models.base import ModelSpec

BANDS = ("B02", "B03", "B04", "B08")


class Plugged(torch.nn.Module):
    """Any network in our machinery: what it is, and views in place of an image."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.spec = ModelSpec(name, BANDS, scale=2, halo=BODIES[name][1], gain=10_000.0)
        self.network = make_network(name)

    def forward(self, views: torch.Tensor, flow: torch.Tensor | None = None) -> torch.Tensor:
        return self.network(views[:, 0])


if __name__ == "__main__":
    source, output, network, options = sys.argv[1:]
    l1bsr_geo.super_resolve(
        source, output, model=Plugged(network), device="cpu", **json.loads(options)
    )
