"""opensr-utils in an environment of its own, with the torch that we run."""

import importlib.metadata
import subprocess
import sys
import venv
from pathlib import Path

VERSION = "2.1.0"


def make_environment(folder: Path) -> Path:
    """The Python of an environment that has opensr-utils; made where it is not there yet.

    torch comes first, in the very version of ours and with pip as it is configured here: where
    that finds a CPU build, 1.5 GB are installed and not 6. torchvision, which is only demanded and
    never imported by opensr-utils, goes again: that of PyPI does not load beside a CPU torch.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if python.exists() and _works(python):
        return python
    torch = "torch==" + importlib.metadata.version("torch").split("+")[0]
    print(f"making {folder} with opensr-utils {VERSION} and {torch}", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(torch + "\n")
    for arguments in (
        ["install", torch],
        ["install", f"opensr-utils=={VERSION}", "--constraint", str(constraints)],
        ["uninstall", "--yes", "torchvision"],
    ):
        subprocess.run([python, "-m", "pip", "--quiet", *arguments], check=True)
    if not _works(python):
        raise SystemExit(f"opensr-utils does not load in {folder}; look at it, or remove it")
    return python


def _works(python: Path) -> bool:
    code = (
        f"import opensr_utils.pipeline as p; assert p and opensr_utils.__version__ == '{VERSION}'"
    )
    tried = subprocess.run([python, "-c", "import opensr_utils\n" + code], capture_output=True)
    return tried.returncode == 0
