"""Writes the lock files: every package of the gate and of the containers, with its version and the SHA-256 of its files:

    pip install uv && python tools/lock.py

Run it after a change of the requirements in setup.cfg, or to take newer versions; without `--upgrade`, versions stay that still
fit. The files hold for Linux, macOS and Windows and for every Python version that setup.cfg allows.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    ".ci/requirements.lock": ("test",),
    "docker/requirements.lock": ("pretrained", "serve", "serving"),
    "docker/requirements-gpu.lock": ("pretrained", "serve", "serving", "gpu"),
}
"""Lock file -> the extras of setup.cfg whose packages it holds, besides those of the package itself."""


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that setup.cfg allows")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    for file, extras in LOCKS.items():
        chosen = [argument for extra in extras for argument in ("--extra", extra)]
        command = ["uv", "pip", "compile", "--no-config", "--quiet", "--universal", "--python-version", "3.11"]
        command += ["--generate-hashes", "--no-annotate", "--no-header", *upgrade, *chosen, "setup.cfg", "--output-file", file]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        print(f"Wrote {file}")


if __name__ == "__main__":
    main()
