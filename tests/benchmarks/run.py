"""Every quick benchmark, one after the other, with their figures as JSON.

python tests/benchmarks/run.py --folder figures

Those that need an environment of their own are left out; the command for them is printed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

LEFT_OUT = {
    "bench_peers": "installs the peers into an environment of their own, 1.5 GB",
    "bench_denoising": "trains networks on a video for hours",
}
"""Benchmarks that are not run here, and why."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("figures"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    commands = {
        script.stem: [sys.executable, script, "--json", arguments.folder / f"{script.stem}.json"]
        for script in sorted(HERE.glob("bench_*.py"))
    }
    for name, command in commands.items():
        if name in LEFT_OUT:
            continue
        print(f"== {name}", flush=True)
        subprocess.run(command, check=True)
    for name, reason in LEFT_OUT.items():
        print(f"== {name} was left out: it {reason}. To run it:")
        print(" ".join(map(str, commands[name])))


if __name__ == "__main__":
    main()
