"""The network on the whole raster in one go, what tiles must come to: INPUT OUTPUT.npy NETWORK."""

import sys

import numpy as np
import rasterio
import torch
from networks import make_network

if __name__ == "__main__":
    source, output, network = sys.argv[1:]
    with rasterio.open(source) as raster:
        pixels = torch.from_numpy(raster.read().astype(np.float32) / np.float32(10_000))
    with torch.inference_mode():
        fine = make_network(network)(pixels[None])[0]
        np.save(output, fine.mul_(10_000).numpy())
