"""Tiny weights with all that a file says of itself, and the judge of those that ship."""

import json

import numpy as np
import safetensors.torch
import torch

from l1bsr_geo.models.classical import Bicubic, Geometric
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.ops.mosaic import demosaick_bilinear, sample_mosaic
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.overlap_motion import BandShifts
from l1bsr_geo.simulation.overlaps import needed_scene, simulate_overlap

_BURST = {"width": 4, "encoder_blocks": 1, "decoder_blocks": 1, "estimates_flow": False}
TINY = {
    "dsa": _BURST,
    "hdr-dsp": _BURST,
    "l1bsr": {"width": 8, "blocks": 1, "features": 2, "hidden": 4},
    "l1bsr-rcan": {"groups": 1, "blocks": 1, "width": 16, "reduction": 4},
}
"""Model to what makes its network tiny; the others are what they are."""

_BORDER = 12  # [fine px]


def write_tiny_weights(path, name, scale=None, seed=0, without=(), said=(), **facts):
    """Random weights of a tiny network, with metadata as our trainer writes them.

    Args:
        path: to write.
        name: of the model.
        scale: of the network; the usual one where None.
        seed: of the weights.
        without: metadata to leave out.
        said: other metadata, by any name.
        **facts: other metadata.
    """
    entry, architecture = MODELS[name], TINY.get(name, {})
    restorer = entry.make(scale, **architecture)
    rng = np.random.default_rng(seed)
    state = {}
    for key, value in entry.trained_part(restorer).state_dict().items():
        fan_in = value[0].numel() if value.ndim > 1 else 400
        made = 0.35 * rng.standard_normal(value.shape, np.float32) / np.sqrt(fan_in)
        state[key] = torch.from_numpy(np.asarray(made, np.float32))
    recipe = {
        "method": name,
        "network": architecture,
        "data": {"kind": "simulated-bursts", "images": ["city/*.jpg"], "seed": 3},
    }
    told = {
        "model": name,
        "scale": str(restorer.spec.scale),
        "network": json.dumps(architecture),
        "method": name,
        "recipe": json.dumps(recipe),
        "schedule": json.dumps({"iterations": 20, "batch": 2, "lr": 0.001, "seed": 5}),
        "iterations": "20",
        "seconds": "7200",
        "hardware": "2 cores fp32",
        "seed": "5",
        "figures": json.dumps({"score": 41.25, "parts": 1.0}),
    } | {**facts, **dict(said)}
    told = {key: value for key, value in told.items() if key not in without}
    safetensors.torch.save_file(state, path, metadata=told)
    return path


def gain_over_spline(model, seed=0):
    """By how much a model beats resampling with exact motion [dB], on held-out made-up scenes.

    Bursts: of the reference frame. Bands: every band where the true flow says. A model that
    registers only is measured against leaving the bands as they are, one that denoises against
    leaving the noise, one that makes colours of a mosaic against bilinear ones.
    """
    spec = model.spec
    if spec.result_bands or (spec.scale == 1 and spec.bands is None):
        return _gain_over_noise(model, seed)
    if spec.frames[1] > 2:
        steps = (0.5, 1.0, 2.0) if spec.name.startswith("hdr-dsp") else (1.0,)
        side = spec.scale * (48 + 40)
        scene = made_city((side, side), 100 + seed)
        made = simulate_burst(
            scene, (48, 48), 9, scale=spec.scale, exposures=steps, exposure_error=0, seed=seed
        )
        views, flow = made.frames[None, :, None], made.flow[None, :, None]
        truth = made.truth[None, None] * made.exposures[0]
        fine = model.restore(views, flow, exposures=made.exposures[None])
        rival = Bicubic(spec.scale, "centre")(torch.from_numpy(views))
    else:
        views, flow, truth = _bands(seed)
        if spec.scale == 1:
            there = Geometric(scale=1)(torch.from_numpy(views), torch.from_numpy(flow))
            truth, rival = there.numpy(), torch.from_numpy(views[:, 0])
        else:
            rival = Geometric(spec.scale)(torch.from_numpy(views), torch.from_numpy(flow))
        fine = model.restore(views, flow)
    assert np.isfinite(fine).all()
    return _psnr(fine, truth) - _psnr(rival.numpy(), truth)


def _gain_over_noise(model, seed):
    """Of colours that move by a pixel a frame, 0 to 255 DN, with noise of 25; of mosaics 3."""
    rng, count = np.random.default_rng(seed), model.spec.frames[1]
    colours = 1 if model.spec.channels is None and not model.spec.result_bands else 3
    scene = np.stack([made_city((96, 96 + count), 300 + 3 * seed + k) for k in range(colours)])
    scene = (scene.mean(0) + 0.3 * (scene - scene.mean(0))) * (200 / scene.max())
    clean = np.stack([scene[:, :, t : t + 96] for t in range(count)]).astype(np.float32)
    truth = clean[count // 2]
    if model.spec.result_bands:
        mosaic = sample_mosaic(torch.from_numpy(clean), "rggb").numpy()
        mosaic += 3 * rng.standard_normal(mosaic.shape, np.float32)
        rival = demosaick_bilinear(torch.from_numpy(mosaic), "rggb").numpy()[0]
        return _psnr(model.restore(mosaic[None])[0], truth) - _psnr(rival, truth)
    noisy = clean + 25 * rng.standard_normal(clean.shape, np.float32)
    return _psnr(model.restore(noisy[None])[0], truth) - _psnr(noisy[count // 2], truth)


def gain_of_file(path, name, scale):
    """``gain_over_spline`` of a weights file."""
    return gain_over_spline(Model(name, weights=path, scale=scale, device="cpu"))


def _bands(seed):
    """Views (1, 1, 4, H, W), flow, truth of one detector over a made-up city."""
    shape, shifts = (64, 64), BandShifts()
    rows, columns = needed_scene(shape, shifts)
    one, two = (made_city((rows, columns), 200 + 2 * seed + k) / 3400 for k in range(2))
    scene = np.stack([one, 0.9 * one + 0.1 * two, 0.7 * one + 0.3 * two, 0.2 * one + 0.8 * two])
    made = simulate_overlap((100 + 900 * scene).astype(np.float32), shape, shifts=shifts, seed=seed)
    views, flow = made.views[None, :1].astype(np.float32), made.flow[None, :1]
    return views, flow.astype(np.float32), made.truth[None]


def _psnr(image, truth):
    inner = (..., slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
    return -10 * np.log10(np.mean((image - truth)[inner].astype(np.float64) ** 2))
