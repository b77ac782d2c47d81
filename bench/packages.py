"""What the peers need: Debian packages, and a virtual environment of the bench's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.errors import BenchError
from bench.settings import WORKPLACE

REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def require(packages: tuple[str, ...], *, install: bool) -> None:
    """Return when all Debian packages are there; else install them if asked to, or raise."""
    missing = [name for name in packages if not _installed(name)]
    if not missing:
        return
    command = ["apt-get", "install", "--no-install-recommends", "-y", *missing]
    if not install:
        raise BenchError(
            f"not installed: {', '.join(missing)}. `{' '.join(command)}` enables this, "
            "or --install lets the bench run it (as root)"
        )
    _install(command)


def _install(command: list[str]) -> None:
    if os.geteuid() != 0:
        raise BenchError(f"installing needs root: `{' '.join(command)}`")
    print(f"bench: {' '.join(command)}", flush=True)
    done = subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    if done.returncode:
        raise BenchError(f"`{' '.join(command)}` failed; `apt-get update` may help")


def _installed(name: str) -> bool:
    """Whether a Debian package is installed. On other systems: unknown, and taken as yes."""
    if not shutil.which("dpkg-query"):
        return True
    return version(name) != ""


def program(name: str) -> str:
    """Where a program is; Debian keeps servers in a folder that is not on every user's path."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if not found:
        raise BenchError(f"the program {name} is missing")
    return found


def version(name: str) -> str:
    """The version of an installed Debian package, or an empty string."""
    query = ["dpkg-query", "-W", "-f=${db:Status-Abbrev}${Version}", name]
    try:
        done = subprocess.run(query, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout[3:] if done.stdout.startswith("ii ") else ""


def environment() -> Path:
    """The folder of programs of the bench's own environment; made, or renewed, when needed."""
    home = WORKPLACE / "venv"
    stamp = home / "requirements.sha256"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        _make_environment(home)
        stamp.write_text(wanted)
    return home / "bin"


def _make_environment(home: Path) -> None:
    print("bench: making an environment for Flask, FastAPI and the plot (once)", flush=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([*pip, "install", "--quiet", "-r", str(REQUIREMENTS)], check=True)
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{REQUIREMENTS.name} could not be installed: {error}") from error


def python_versions(*names: str) -> str:
    """`name version` of distributions in the bench's environment."""
    code = "import sys; from importlib.metadata import version as v\n"
    code += "print(', '.join(f'{n} {v(n)}' for n in sys.argv[1:]))"
    command = [str(environment() / "python"), "-c", code, *names]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
