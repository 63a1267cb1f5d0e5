"""Super-resolve with a network that notes every tile it restores, in a process that may be killed.

python tests/synthetic/slow_restoration.py SOURCE OUTPUT NOTES '{"tile": 96, ...}' SECONDS_PER_TILE
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from l1bsr_geo import super_resolve
from l1bsr_geo.errors import L1bsrGeoError
from l1bsr_geo.models.base import ModelSpec


class NotingNetwork(nn.Module):
    """Twice the resolution by a 3 x 3 kernel; every call of it is a line of a file."""

    def __init__(self, notes: Path, seconds: float) -> None:
        super().__init__()
        self.spec = ModelSpec("noting", scale=2, halo=2)
        self.notes, self.seconds = notes, seconds
        self.blur = nn.Conv2d(1, 1, 3, padding=1, padding_mode="replicate", bias=False)
        with torch.no_grad():
            self.blur.weight.copy_(
                torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])[None, None] / 16
            )

    def forward(self, views, flow=None):
        batch, _, bands, height, width = views.shape
        with self.notes.open("ab", buffering=0) as file:  # one line in one write
            file.write(f"{height} {width} {os.getpid()} {time.monotonic()}\n".encode())
        time.sleep(self.seconds)
        with self.notes.open("ab", buffering=0) as file:
            file.write(f"end - {os.getpid()} {time.monotonic()}\n".encode())
        fine = views[:, 0].repeat_interleave(2, -1).repeat_interleave(2, -2)
        return self.blur(fine.flatten(0, 1)[:, None]).reshape(batch, bands, 2 * height, 2 * width)


def count_tiles(notes: Path, tile: int) -> int:
    """How many tiles were restored; probes of the network are smaller or larger than a tile."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    sizes = [line.split()[:2] for line in lines if not line.startswith("end")]
    return sum(tile <= int(h) <= tile + 4 and tile <= int(w) <= tile + 4 for h, w in sizes)


if __name__ == "__main__":
    source, output, notes, options, seconds = sys.argv[1:]
    model = NotingNetwork(Path(notes), float(seconds))
    try:
        super_resolve(source, output, model=model, **json.loads(options))
    except L1bsrGeoError as error:
        sys.exit(f"error: {error}")
