"""The training loop, on problems whose solution is known in closed form."""

import json
import os
import signal
import threading

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    MissingInputError,
    OutputExistsError,
)
from l1bsr_geo.training.averaging import AveragedNetwork
from l1bsr_geo.training.checkpoints import CHECKPOINT
from l1bsr_geo.training.log import LOG, RunLog, read_log
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.precision import computing, pick_device
from l1bsr_geo.training.schedule import Schedule
from l1bsr_geo.training.trainer import Trainer

WEIGHT = torch.tensor([1.0, -2.0, 0.5])
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Pixels:
    """Images of three bands, and a mixture of them with noise as truth."""

    def __init__(self, noise=0.0):
        self.noise = noise
        self.drawn = []

    def draw(self, rng, count):
        self.drawn.append((threading.current_thread().name, float(rng.random())))
        x = torch.from_numpy(rng.normal(size=(count, 1, 3, 4, 4)).astype("f4"))
        y = (x[:, 0] * WEIGHT[:, None, None]).sum(1, keepdim=True)
        noise = torch.from_numpy(rng.normal(size=y.shape).astype("f4"))
        return Batch(x, truth=y + self.noise * noise)


class OnePool(Pixels):
    """Always the same samples."""

    def draw(self, rng, count):
        return super().draw(np.random.default_rng(5), count)


class Regression:
    """Least squares; part of the pixels is left out by chance."""

    left_out = 0.0

    def loss(self, network, batch, rng):
        kept = torch.from_numpy(rng.random(batch.truth.shape) >= self.left_out)
        square = (network(batch.views[:, 0]) - batch.truth)[kept].square().mean()
        return square, {"square": square, "kept": float(kept.float().mean())}

    def score(self, network, batch):
        error = (network(batch.views[:, 0]) - batch.truth).square().mean()
        return {"score": -float(error), "first": float(batch.views.flatten()[0])}


class Chance(Regression):
    left_out = 0.3


class Drift:
    """Lets one weight grow at the learning rate: Adam's step where the gradient never changes."""

    def loss(self, network, batch, rng):
        return -network.weight.sum(), {}

    def score(self, network, batch):
        return {"score": -abs(float(network.weight.sum()) - 1)}


class OneWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


def mixer(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(dropout), nn.Conv2d(4, 1, 1))


def constant(lr=0.1, **options):
    return Schedule(lr=lr, final_lr=lr, clip=None, ema=0, **options)


def make(folder, schedule, network=None, objective=None, source=None, **options):
    options = {
        "device": "cpu",
        "validation": [Pixels().draw(np.random.default_rng(1), 2)],
    } | options
    return Trainer(
        network if network is not None else mixer(),
        objective or Regression(),
        source or Pixels(noise=0.1),
        schedule=schedule,
        folder=folder,
        **options,
    )


def lines(folder):
    """The log without what time it took."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(folder)]


def weights(folder, name="best.safetensors"):
    return safetensors.torch.load_file(folder / name)


def facts(folder, name="best.safetensors"):
    with safetensors.safe_open(folder / name, "pt") as file:
        return file.metadata()


def test_finds_the_least_squares_solution(tmp_path):
    source = OnePool(noise=0.5)
    batch = source.draw(None, 8)
    rows = batch.views[:, 0].permute(0, 2, 3, 1).reshape(-1, 3).numpy().astype(float)
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    solution, residuals, *_ = np.linalg.lstsq(rows, batch.truth.numpy().ravel().astype(float))
    schedule = Schedule(iterations=300, batch=8, lr=0.1, final_lr=1e-4, ema=0.9, precision="fp32")
    trainer = make(tmp_path, schedule, nn.Conv2d(3, 1, 1), source=source)
    assert trainer.run() == tmp_path / "best.safetensors"
    assert trainer.ended == "done"
    found = weights(tmp_path, "last.safetensors")
    np.testing.assert_allclose(found["weight"].ravel(), solution[:3], atol=5e-4)
    np.testing.assert_allclose(found["bias"], solution[3:], atol=5e-4)
    log = [line for line in read_log(tmp_path) if "loss" in line]
    assert [line["iteration"] for line in log] == list(range(50, 301, 50))
    assert log[-1]["loss"] == pytest.approx(residuals[0] / len(rows), rel=1e-4)
    assert log[0]["loss"] > log[-1]["loss"]
    assert log[-1]["parts"]["square"] == pytest.approx(log[-1]["loss"])
    assert log[-1]["lr"] == pytest.approx(1e-4)


SHORT = Schedule(
    iterations=8, batch=4, lr=0.05, ema=0.5, precision="fp32", seed=3,
    validate_every=3, save_every=100, log_every=3,
)  # fmt: skip


def stop_at(iteration, number):
    def progress(done, total, figures):
        if done == iteration:
            os.kill(os.getpid(), number)

    return progress


@pytest.mark.parametrize("stop", ["Ctrl-C", "SIGTERM", "minutes", "crash"])
def test_resuming_gives_the_same_curve_to_the_last_bit(tmp_path, stop, caplog):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    make(whole, SHORT, mixer(0.2), Chance()).run()
    first = make(parted, SHORT, mixer(0.2), Chance())
    if stop == "minutes":
        first.run(minutes=0)
        assert (first.ended, first.state.iteration) == ("minutes", 0)
    elif stop == "crash":
        saving = Schedule(**{**vars(SHORT), "save_every": 4})
        broken = make(parted, saving, mixer(0.2), Chance(), Breaks(at=8))
        with pytest.raises(OSError, match="the disk is gone"):
            broken.run()
        assert [line["iteration"] for line in lines(parted)] == [0, 3, 3, 6, 6]
    else:
        number = signal.SIGINT if stop == "Ctrl-C" else signal.SIGTERM
        before = signal.getsignal(number)
        first.run(progress=stop_at(4, number))
        assert (first.ended, first.state.iteration) == ("interrupted", 4)
        assert signal.getsignal(number) is before
        assert "resume" in caplog.text
    second = make(parted, SHORT, mixer(0.2), Chance())
    torch.manual_seed(99)  # what went on before does not matter
    second.run(resume=True)
    for name in ("best.safetensors", "last.safetensors"):
        a, b = weights(whole, name), weights(parted, name)
        assert all(torch.equal(a[key], b[key]) for key in a)
        same = ("iterations", "score", "figures", "seed")
        assert all(facts(whole, name).get(k) == facts(parted, name).get(k) for k in same)
    assert lines(whole) == lines(parted)
    assert [line["iteration"] for line in lines(whole)] == [0, 3, 3, 6, 6, 8, 8]
    a, b = (torch.load(f / CHECKPOINT, weights_only=True) for f in (whole, parted))
    assert all(torch.equal(a["network"][key], b["network"][key]) for key in a["network"])


class Breaks(Pixels):
    """A disk that goes away at one of the iterations."""

    def __init__(self, at):
        super().__init__(noise=0.1)
        self.at = at

    def draw(self, rng, count):
        if len(self.drawn) + 1 == self.at:
            raise OSError("the disk is gone")
        return super().draw(rng, count)


def test_another_seed_gives_another_curve(tmp_path):
    make(tmp_path / "a", SHORT).run()
    make(tmp_path / "b", Schedule(**{**vars(SHORT), "seed": 4})).run()
    assert lines(tmp_path / "a") != lines(tmp_path / "b")


def test_the_state_of_torch_is_left_as_it_was(tmp_path):
    trainer = make(tmp_path, SHORT, mixer(0.2))
    before = torch.get_rng_state()
    trainer.run()
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_are_drawn_in_order_in_another_thread(tmp_path):
    source = Pixels()
    make(tmp_path, SHORT, source=source).run()
    assert {name for name, _ in source.drawn} == {"draw-ahead_0"}
    expected = [np.random.default_rng([SHORT.seed, i]).random() for i in range(1, 9)]
    assert [value for _, value in source.drawn] == expected


def test_a_second_signal_ends_at_once(tmp_path):
    def twice(done, total, figures):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, SHORT).run(progress=twice)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_folder_in_use_is_refused(tmp_path):
    make(tmp_path, SHORT).run()
    with pytest.raises(OutputExistsError, match="holds a training already; resume"):
        make(tmp_path, SHORT).run()
    before = weights(tmp_path)
    again = make(tmp_path, SHORT)
    again.run(resume=True)  # done already: nothing changes
    assert (again.ended, again.state.iteration) == ("done", 8)
    assert all(torch.equal(v, before[k]) for k, v in weights(tmp_path).items())


def test_what_remains_of_an_unsaved_training_is_written_over(tmp_path):
    with pytest.raises(OSError, match="the disk"):
        make(tmp_path, SHORT, source=Breaks(at=7)).run()
    make(tmp_path, SHORT).run()
    assert [line["iteration"] for line in lines(tmp_path)] == [0, 3, 3, 6, 6, 8, 8]


def test_another_recipe_is_refused_by_name(tmp_path):
    make(tmp_path, SHORT, recipe={"data": {"noise": 1}, "method": "x"}).run()
    other = Schedule(**{**vars(SHORT), "lr": 0.04, "save_every": 2})
    message = r"data.noise was 1 and is 2; data.size was not given and is 8; schedule.lr was 0.05 "
    with pytest.raises(BadOptionError, match=message):
        make(tmp_path, other, recipe={"data": {"noise": 2, "size": 8}, "method": "x"}).run(
            resume=True
        )


def test_nothing_to_resume(tmp_path):
    with pytest.raises(MissingInputError, match="no training to resume"):
        make(tmp_path, SHORT).run(resume=True)
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(BadInputError, match="not a checkpoint"):
        make(tmp_path, SHORT).run(resume=True)


def test_a_loss_that_is_not_finite_does_not_spoil_the_weights(tmp_path):
    class Spoilt(Pixels):
        def draw(self, rng, count):
            batch = super().draw(rng, count)
            if len(self.drawn) == 3:
                batch.views[0, 0, 0, 0, 0] = torch.nan
            return batch

    network = mixer()
    with pytest.raises(BadInputError, match="iteration 3: the loss is nan"):
        make(tmp_path, SHORT, network, source=Spoilt()).run()
    reference = mixer()
    stop = stop_at(2, signal.SIGINT)
    make(tmp_path / "two", SHORT, reference, source=Pixels()).run(progress=stop)
    pairs = zip(network.parameters(), reference.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_adam_steps_follow_the_rates_of_the_parts(tmp_path):
    network = mixer()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    schedule = constant(0.01, iterations=1, rates={"0": 0.5, "0.bias": 0})
    make(tmp_path, schedule, network).run()
    for name, after in network.named_parameters():
        step = (after - before[name]).abs()
        # the first step of Adam is the learning rate, whatever the gradient
        rate = {"0.weight": 0.005, "0.bias": 0.0}.get(name, 0.01)
        torch.testing.assert_close(step, torch.full_like(step, rate), atol=1e-5, rtol=0)


def test_the_best_is_kept_and_training_ends_without_gain(tmp_path):
    trainer = make(
        tmp_path, constant(iterations=50, validate_every=1, patience=4), OneWeight(), Drift()
    )
    trainer.run()
    assert trainer.ended == "no gain"
    assert (trainer.state.iteration, trainer.state.best_iteration) == (14, 10)
    assert weights(tmp_path)["weight"].item() == pytest.approx(1.0, abs=1e-5)
    assert weights(tmp_path, "last.safetensors")["weight"].item() == pytest.approx(1.4, abs=1e-5)
    assert facts(tmp_path)["iterations"] == "10"
    again = make(
        tmp_path, constant(iterations=50, validate_every=1, patience=4), OneWeight(), Drift()
    )
    again.run(resume=True)
    assert (again.ended, again.state.iteration) == ("no gain", 14)


def test_weights_to_start_from_are_scored_first(tmp_path):
    network = OneWeight()
    nn.init.ones_(network.weight)
    trainer = make(tmp_path, constant(iterations=2), network, Drift())
    trainer.run()
    assert trainer.state.best_iteration == 0
    assert weights(tmp_path)["weight"].item() == 1


def test_without_validation_the_newest_is_the_best(tmp_path):
    trainer = make(tmp_path, constant(iterations=5), OneWeight(), Drift(), validation=[])
    trainer.run()
    assert trainer.state.best is None
    assert weights(tmp_path)["weight"].item() == pytest.approx(0.5, abs=1e-5)
    assert "score" not in facts(tmp_path)


def test_the_running_average_is_what_its_formula_says():
    network, steps = OneWeight(), np.random.default_rng(0).normal(size=200)
    average = AveragedNetwork(network, 0.95)
    expected = 0.0
    for step, value in enumerate(steps, 1):
        nn.init.constant_(network.weight, value)
        average.add(network, step)
        share = max(0.05, 10 / (9 + step))
        expected += share * (value - expected)
        assert average.network.weight.item() == pytest.approx(expected, abs=1e-6)
        if step == 1:  # no bias to where it began
            assert average.network.weight.item() == np.float32(value)
    # with that many steps it is the exponential average
    tail = sum(0.05 * 0.95**k * value for k, value in enumerate(steps[::-1]))
    assert expected == pytest.approx(tail, abs=1e-3)


def test_the_gradient_is_clipped(tmp_path):
    network = mixer()
    schedule = Schedule(iterations=2, clip=1e-3, precision="fp32", log_every=1)
    make(tmp_path, schedule, network).run()
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
    assert min(line["gradient"] for line in read_log(tmp_path) if "loss" in line) > 1e-2


def test_figures_are_means_over_samples(tmp_path):
    batches = [Pixels().draw(np.random.default_rng(k), n) for k, n in ((1, 3), (2, 1))]
    make(tmp_path, constant(iterations=1), validation=batches).run()
    figures = lines(tmp_path)[0]["figures"]
    first = [float(b.views.flatten()[0]) for b in batches]
    assert figures["first"] == pytest.approx(0.75 * first[0] + 0.25 * first[1])
    views, truth = (torch.cat([getattr(b, name) for b in batches]) for name in ("views", "truth"))
    error = (mixer()(views[:, 0]) - truth).square().mean().item()
    assert figures["score"] == pytest.approx(-error, rel=1e-5)


def test_weights_files_say_where_they_come_from(tmp_path):
    network = nn.ModuleDict({"inner": nn.Conv2d(3, 1, 1)})
    network.forward = network["inner"].forward
    trainer = make(tmp_path, SHORT, network, facts={"model": "x"}, part="inner")
    trainer.run()
    told = facts(tmp_path)
    assert told["model"] == "x"
    assert told["seed"] == "3"
    assert told["torch"] == torch.__version__
    assert "1 threads fp32" in told["hardware"]
    assert float(told["score"]) == pytest.approx(trainer.state.best, rel=1e-5)
    assert json.loads(told["figures"])["score"] == trainer.state.best
    assert set(weights(tmp_path)) == {"weight", "bias"}
    assert not list(tmp_path.glob("*.part"))


def test_bf16_is_for_the_network_alone():
    network = mixer()
    seen = []
    network[2].register_forward_pre_hook(lambda m, x: seen.append(x[0].dtype))
    x = torch.randn(1, 3, 4, 4)
    with computing(network, "bf16", CPU):
        whole, child = network(x), network[0](x)
        assert whole.dtype == child.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        with pytest.raises(RuntimeError):
            network(x[:, :2])  # what fails leaves nothing behind
        assert not torch.is_autocast_enabled("cpu")
        whole.sum().backward()
    assert network[0].weight.grad.dtype == torch.float32
    exact = network(x)
    assert seen == [torch.bfloat16, torch.float32]
    assert not torch.equal(exact, whole)
    torch.testing.assert_close(exact, whole, atol=0.03, rtol=0.03)


def test_bf16_learns_the_same(tmp_path):
    schedule = Schedule(iterations=100, batch=8, lr=0.1, ema=0.9, precision="bf16")
    make(tmp_path, schedule, nn.Conv2d(3, 1, 1)).run()
    found = weights(tmp_path, "last.safetensors")
    assert found["weight"].dtype == torch.float32
    torch.testing.assert_close(found["weight"].ravel(), WEIGHT, atol=0.02, rtol=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadOptionError, match="no GPU"):
        make(tmp_path, SHORT, device="cuda")
    assert pick_device("auto").type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trains_and_resumes_on_a_gpu(tmp_path):
    schedule = Schedule(iterations=300, batch=8, lr=0.1, ema=0.9)
    first = make(tmp_path, schedule, nn.Conv2d(3, 1, 1), device="cuda")
    assert first.precision == "bf16"
    first.run(progress=stop_at(100, signal.SIGINT))
    make(tmp_path, schedule, nn.Conv2d(3, 1, 1), device="cuda").run(resume=True)
    torch.testing.assert_close(weights(tmp_path)["weight"].ravel(), WEIGHT, atol=0.02, rtol=0)


def test_the_learning_rate_rises_and_falls():
    schedule = Schedule(iterations=110, warmup=9, lr=1.0, final_lr=0.1)
    rates = [schedule.rate(i) for i in range(1, 111)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[9:], 0.55 + 0.45 * np.cos(np.pi * np.arange(101) / 100))
    assert Schedule(iterations=1, lr=0.5).rate(1) == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("iterations", 0), ("batch", 0), ("lr", 0.0), ("final_lr", 1.0), ("warmup", 20_000),
     ("clip", 0.0), ("ema", 1.0), ("rates", {"a": -1.0}), ("precision", "fp8"), ("seed", -1),
     ("patience", 0), ("log_every", 0)],
)  # fmt: skip
def test_impossible_schedules_are_refused(name, value):
    with pytest.raises(BadOptionError, match=rf"schedule\.{name}: found .*, allowed "):
        Schedule(**{name: value})


def test_rates_must_name_what_is_there():
    with pytest.raises(BadOptionError, match=r"found 'encoder'.* its parts are 0, 1, 2"):
        Schedule(rates={"encoder": 0.1}).groups(mixer())
    with pytest.raises(BadOptionError, match="all is frozen"):
        Schedule(rates={"": 0}).groups(mixer())


def test_a_log_that_a_crash_cut_off_is_read(tmp_path):
    with RunLog(tmp_path) as log:
        log.write(1, {"loss": 2.0, "parts": {"a": float("nan")}})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"iteration": 2, "lo')
    assert read_log(tmp_path) == [{"iteration": 1, "loss": 2.0, "parts": {"a": None}}]
    with RunLog(tmp_path, iteration=1) as log:
        log.write(2, {"loss": 1.0})
    assert [line["iteration"] for line in read_log(tmp_path)] == [1, 2]


def test_tensorboard_is_an_extra(tmp_path):
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(BadOptionError, match=r"l1bsr-geo\[tensorboard\]"):
            RunLog(tmp_path, tensorboard=True)
        return
    with RunLog(tmp_path, tensorboard=True) as log:
        log.write(1, {"loss": 2.0})
    assert list(tmp_path.glob("events.*"))


ONLINE = Schedule(**{**vars(SHORT), "final_lr": 0.05, "validate_every": 8})


def test_learning_online_is_the_same_loop(tmp_path):
    make(tmp_path / "run", ONLINE, mixer(0.2), Chance()).run()
    source = Pixels(noise=0.1)
    online = make(tmp_path / "online", ONLINE, mixer(0.2), Chance(), source)
    online.begin()
    losses = [online.learn(source, 3), online.learn(source, 5)]
    assert online.end() == tmp_path / "online" / "best.safetensors"
    for name in ("best.safetensors", "last.safetensors"):
        a, b = weights(tmp_path / "run", name), weights(tmp_path / "online", name)
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert [line for line in lines(tmp_path / "run") if line["iteration"]] == lines(
        tmp_path / "online"
    )
    assert all(np.isfinite(losses))


def test_learning_online_goes_on_from_its_checkpoint(tmp_path):
    batches = [Pixels(noise=0.1).draw(np.random.default_rng(k), 4) for k in range(2)]
    whole = make(tmp_path / "whole", ONLINE, mixer(0.2), Chance())
    whole.begin()
    parted = make(tmp_path / "parted", ONLINE, mixer(0.2), Chance())
    parted.begin()
    for trainer in (whole, parted):
        trainer.learn(batches[0], 4)
    parted.save()
    parted.learn(batches[0], 2)  # is lost
    torch.manual_seed(99)
    again = make(tmp_path / "parted", ONLINE, mixer(0.2), Chance())
    again.begin(resume=True)
    assert again.state.iteration == 4
    assert again.learn(batches[1], 4) == whole.learn(batches[1], 4)
    whole.end()
    again.end()
    a, b = (weights(tmp_path / name) for name in ("whole", "parted"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert lines(tmp_path / "whole") == lines(tmp_path / "parted")


def test_learning_online_ends_with_the_schedule(tmp_path):
    trainer = make(tmp_path, ONLINE)
    trainer.begin()
    with pytest.raises(BadOptionError, match="found 9 after iteration 0 of 8, allowed 1 to"):
        trainer.learn(Pixels(), 9)


def test_the_betas_of_adam_are_part_of_the_recipe(tmp_path):
    make(tmp_path, ONLINE, betas=(0.2, 0.2)).run()
    with pytest.raises(BadOptionError, match="betas was"):
        make(tmp_path, ONLINE).run(resume=True)
