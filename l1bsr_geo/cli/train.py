"""`l1bsr-geo train`."""

from pathlib import Path
from typing import Annotated

import typer

from l1bsr_geo.cli.console import console, show_training
from l1bsr_geo.cli.options import Device


def train_network(
    method: Annotated[str, typer.Argument(help="Method: dsa, hdr-dsp, csr, l1bsr and others.")],
    config: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of this training; runs/RECIPE by default.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the recipe's paths start; beside it by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where the network is trained.")] = Device.AUTO,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="End after so many, with a checkpoint.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="In place of the recipe's.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights to start from, in place of the recipe's.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard, too.")
    ] = False,
) -> None:
    """Train a network as a recipe says; leaves its weights, a checkpoint and a log."""
    from l1bsr_geo.pipelines.training import train

    folder = out or Path("runs") / config.stem
    with show_training(method) as progress:
        training = train(
            config,
            folder,
            method=method,
            data=data,
            resume=resume,
            device=device.value,
            minutes=minutes,
            iterations=iterations,
            start=start,
            tensorboard=tensorboard,
            progress=progress,
        )
    score = "not scored"
    if training.score is not None:
        score = f"best score {training.score:.4f} at iteration {training.score_iteration}"
    done = f"{training.iteration} of {training.iterations} iterations"
    print(f"{score}, {done} ({training.ended}): {training.weights}")
    if training.ended in ("interrupted", "minutes"):
        console.print("go on with --resume", highlight=False)
    if training.ended == "interrupted":
        raise typer.Exit(130)
