"""Devices are shared: never more restorations at once than there are slots."""

import threading
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.devices import Slots, find_slots, measure_peak, pick_device, stage
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.single_image import SingleImage

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Counts how many calls of it run at the same time."""

    spec = ModelSpec("counting", scale=1)
    now, most, lock = 0, 0, threading.Lock()

    def forward(self, views, flow=None):
        with Counting.lock:
            Counting.now += 1
            Counting.most = max(Counting.most, Counting.now)
        time.sleep(0.01)
        with Counting.lock:
            Counting.now -= 1
        return views[:, 0]


def run_threads(count, function):
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_restoration_at_a_time_on_a_cpu():
    models = [Model.from_restorer(Counting(), "cpu") for _ in range(2)]  # even of two models
    x = np.ones((1, 1, 1, 4, 4), np.float32)
    Counting.most = 0
    run_threads(8, lambda: [model.restore(x) for model in models])
    assert Counting.most == 1


def test_never_more_than_the_slots():
    slots, together = Slots(CPU, 3), threading.Barrier(3)
    now, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal now, most
        with slots.take():
            with lock:
                now += 1
                most = max(most, now)
            together.wait(timeout=5)  # three are there at a time
            with lock:
                now -= 1

    run_threads(9, work)
    assert most == 3


def test_a_slot_is_given_back_after_an_error():
    slots = Slots(CPU, 1)
    with pytest.raises(KeyError), slots.take():
        raise KeyError
    with slots.take() as slot:
        assert slot.device == CPU


def test_a_process_has_one_set_of_slots():
    assert find_slots(CPU) is find_slots(torch.device("cpu"))
    assert pick_device("cpu") == CPU


def test_staging_pads_by_the_edge_and_copies():
    array = np.arange(6, dtype=np.uint16).reshape(1, 2, 3)
    staged = stage(array, 4, CPU)
    assert staged.dtype == torch.float32
    np.testing.assert_array_equal(staged[0], np.pad(array[0], ((0, 2), (0, 1)), mode="edge"))
    staged += 1
    assert array.max() == 5


def test_a_cpu_measures_no_memory():
    with measure_peak(CPU) as peak:
        torch.zeros(1000)
    assert peak.bytes == 0


class TestSingleImage:
    spec = ModelSpec("own", ("B02", "B03"), scale=2, halo=1, gain=1000.0)

    def test_a_plain_network_restores(self):
        network = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2))
        x = np.random.default_rng(0).uniform(0, 1000, (2, 1, 2, 6, 7)).astype(np.float32)
        found = Model.from_restorer(SingleImage(network, self.spec), "cpu").restore(x)
        with torch.inference_mode():
            expected = 1000 * network(torch.from_numpy(x[:, 0]) / 1000)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)

    @pytest.mark.parametrize(
        "asks",
        [{"frames": (1, 5)}, {"flow": True}, {"exposures": True}, {"scene_statistics": True}],
    )
    def test_what_one_image_does_not_have_is_refused(self, asks):
        with pytest.raises(BadOptionError, match="one frame and no more"):
            SingleImage(nn.Identity(), ModelSpec("own", **asks))

    def test_a_result_of_another_shape_is_refused_in_one_line(self):
        model = Model.from_restorer(SingleImage(nn.Identity(), self.spec), "cpu")
        with pytest.raises(BadInputError, match=r"made \(1, 2, 4, 4\).* should be \(1, 2, 8, 8\)"):
            model.restore(np.ones((1, 1, 2, 4, 4), np.float32))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestOnAGpu:
    """Copies, kernels and threads there; the pixels are those of the CPU."""

    @pytest.fixture(autouse=True)
    def _exact(self, monkeypatch):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    @staticmethod
    def network():
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 3, padding=1)]
        return SingleImage(nn.Sequential(*layers, nn.PixelShuffle(2)), TestSingleImage.spec)

    def test_threads_get_their_own_results(self):
        gpu, cpu = (Model.from_restorer(self.network(), d) for d in ("cuda", "cpu"))
        tiles = np.random.default_rng(0).uniform(0, 1000, (24, 1, 1, 2, 96, 80)).astype("f4")
        found = {}

        def work(own):
            for i in own:
                found[i] = gpu.restore(tiles[i])

        threads = [threading.Thread(target=work, args=(range(k, 24, 4),)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, tile in enumerate(tiles):
            np.testing.assert_allclose(found[i], cpu.restore(tile), atol=0.05)

    def test_memory_is_that_of_the_slots(self):
        model = Model.from_restorer(self.network(), "cuda")
        tile = np.ones((1, 1, 2, 512, 512), np.float32)
        model.restore(tile)
        with measure_peak(model.torch_device) as one:
            model.restore(tile)
        with measure_peak(model.torch_device) as many:
            run_threads(8, lambda: [model.restore(tile) for _ in range(3)])
        assert many.bytes < 2.5 * one.bytes

    def test_nothing_is_waited_for_but_the_result(self):
        model = Model.from_restorer(self.network(), "cuda")
        tile = np.ones((1, 1, 2, 64, 64), np.float32)
        model.restore(tile)
        torch.cuda.set_sync_debug_mode("error")  # what waits for the device, but for events, fails
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                model.restore(tile)
        finally:
            torch.cuda.set_sync_debug_mode("default")
