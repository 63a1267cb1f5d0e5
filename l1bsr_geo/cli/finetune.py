"""`l1bsr-geo finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from l1bsr_geo.cli.console import console, show_training
from l1bsr_geo.cli.options import (
    AoiOption,
    CameraOption,
    DemOption,
    DetectorOption,
    Device,
    FramesOption,
    GeoidOption,
    Geometry,
    GeometryOption,
    GippOption,
    HeightOption,
    OverwriteOption,
    ReferenceOption,
    ScaleOption,
    Sensor,
    SensorOption,
    StartOption,
    number_or_name,
)


def finetune_network(
    source: Annotated[
        Path, typer.Argument(help="Burst, or L1B product with neighbouring detectors.")
    ],
    out: Annotated[Path, typer.Option(help="Weights to write, for `sr --weights`.")],
    model: Annotated[
        str | None, typer.Option(help="dsa or hdr-dsp (bursts), l1bsr (products).")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights to start from; the model's own by default.")
    ] = None,
    scale: ScaleOption = None,
    minutes: Annotated[float, typer.Option(min=0, help="Of training, at most.")] = 5.0,
    iterations: Annotated[int, typer.Option(min=1, help="Of training, at most.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    sensor: SensorOption = Sensor.AUTO,
    detector: DetectorOption = None,
    geometry: GeometryOption = Geometry.AUTO,
    gipp: GippOption = None,
    camera: CameraOption = None,
    start: StartOption = None,
    frames: FramesOption = 15,
    reference: ReferenceOption = "middle",
    aoi: AoiOption = None,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    height: HeightOption = 0.0,
    device: Annotated[Device, typer.Option(help="Where the network is trained.")] = Device.AUTO,
    overwrite: OverwriteOption = False,
) -> None:
    """Adapt a network to what it is to super-resolve, and keep that only where it gains."""
    from l1bsr_geo.pipelines.finetune import finetune
    from l1bsr_geo.pipelines.job import read_aoi

    with show_training(f"on {source.name}") as progress:
        done = finetune(
            source,
            out,
            model=model,
            weights=weights,
            scale=scale,
            minutes=minutes,
            iterations=iterations,
            device=device.value,
            seed=seed,
            progress=progress,
            sensor=sensor.value,
            detector=detector,
            geometry=geometry.value,
            gipp=gipp,
            camera=camera,
            start=number_or_name(start),
            frames=frames,
            reference=number_or_name(reference),
            aoi=None if aoi is None else read_aoi(aoi),
            dem=dem,
            geoid=geoid,
            height=height,
            overwrite=overwrite,
        )
    tuned = done.adaptation
    trial = (
        f"{100 * tuned.gain.mean:+.2f} % of the loss on {tuned.gain.places} places held back, "
        f"standard error {100 * tuned.gain.error:.2f} %"
    )
    after = f"{tuned.iterations} iterations ({tuned.ended})"
    if tuned.kept:
        print(f"{done.model} adapted, as of iteration {tuned.iteration} of {after}: {done.weights}")
        console.print(f"gain: {trial}", highlight=False)
    else:
        print(f"{done.model} unchanged, gain 0 after {after}: {done.weights}")
        console.print(f"nothing was gained beyond chance: {trial}", highlight=False)
