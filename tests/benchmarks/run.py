"""Every quick benchmark, one after the other, with their figures as JSON.

python tests/benchmarks/run.py --folder figures
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("figures"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for script in sorted(HERE.glob("bench_*.py")):
        print(f"== {script.stem}", flush=True)
        output = arguments.folder / f"{script.stem}.json"
        subprocess.run([sys.executable, script, "--json", output], check=True)


if __name__ == "__main__":
    main()
