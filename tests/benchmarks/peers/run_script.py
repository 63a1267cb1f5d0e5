"""What the L1BSR authors' script does, rebuilt from its description: INPUT OUTPUT WEIGHTS.

The whole crop in one float32 forward of REC in torch's default memory format: DN / 400 in, x 400
out, clipped to uint16.
"""

import sys

import numpy as np
import rasterio
import torch
from safetensors.torch import load_file

from l1bsr_geo.models.rcan import REC

if __name__ == "__main__":
    source, output, weights = sys.argv[1:]
    network = REC()
    network.load_state_dict(load_file(weights))
    network.eval()
    with rasterio.open(source) as raster:
        pixels = torch.from_numpy(raster.read().astype(np.float32) / np.float32(400))
    with torch.no_grad():
        fine = network(pixels[None, None])[0].numpy() * 400
    bands, height, width = fine.shape
    profile = {"driver": "GTiff", "dtype": "uint16", "compress": "lzw"}
    with rasterio.open(output, "w", width=width, height=height, count=bands, **profile) as raster:
        raster.write(np.clip(np.round(fine), 0, 65535).astype(np.uint16))
