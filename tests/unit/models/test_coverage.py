import torch

from l1bsr_geo.models.coverage import FrameCount, NoiseGain


def test_counts_frames_with_data():
    views = torch.ones(1, 3, 1, 6, 8)
    views[:, 1, :, :, 4:] = torch.nan
    views[:, 2, :, 3:] = torch.nan
    count = FrameCount(2)(views)
    assert count.shape == (1, 1, 12, 16)
    assert count[0, 0, 0, 0] == 3
    assert count[0, 0, 0, 15] == 2
    assert count[0, 0, 11, 0] == 2
    assert count[0, 0, 11, 15] == 1


def test_noise_gain_is_that_of_averaging_noise():
    """Against simulation: the noise of shift-and-add over many draws."""
    from l1bsr_geo.models.shift_and_add import ShiftAndAdd

    generator = torch.Generator().manual_seed(0)
    frames, draws = 5, 600
    motion = torch.rand(1, frames, 1, 2, 1, 1, generator=generator) * 2 - 1
    motion[:, 0] = 0
    flow = motion.expand(-1, -1, -1, -1, 10, 12)
    exposures = torch.tensor([[1.0, 0.5, 2.0, 1.0, 1.0]])
    noise = torch.randn(draws, frames, 1, 10, 12, generator=generator)
    result = ShiftAndAdd(2)(
        noise, flow.expand(draws, -1, -1, -1, -1, -1), exposures=exposures.expand(draws, -1)
    )
    gain = NoiseGain(2)(torch.ones(1, frames, 1, 10, 12), flow, exposures=exposures)[0, 0]
    inner = slice(6, -6)
    measured, told = result[:, 0].std(0)[inner, inner], gain[inner, inner]
    enough = told < 3  # holes are filled from around them
    assert enough.float().mean() > 0.8
    torch.testing.assert_close(measured[enough], told[enough], rtol=0.15, atol=0.02)


def test_equal_frames_average_down():
    views = torch.ones(1, 9, 1, 5, 5)
    gain = NoiseGain(1)(views, torch.zeros(1, 9, 1, 2, 5, 5))
    torch.testing.assert_close(gain, torch.full_like(gain, 1 / 3))
