"""Where numbers come from: versions, machine, commit, time and command."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys

PACKAGES = ("convlab-jax", "jax", "jaxlib", "flax", "optax", "numpy")
PATHS = re.compile(
    r"(?:(?<![\w./~-])|(?<=^-\w))"  # Where a path may begin: not inside a relative one, but after -o.
    r"(?:/|~\w*/|(?:\.\./)+|[A-Za-z]:[\\/])"  # What leads out of the current folder.
    r"[^=,:;'\"()\[\]{}]*"
)


def provenance(seconds: float | None = None) -> dict[str, str | int | float | bool | None]:
    """Record what is needed to run this again and to judge its times: no host, user or folder names.

    Args:
      seconds: How long the experiment took.

    Returns:
      Versions by package (None if not installed); platform, processor, cores; jax's backend, device kind and number of
      devices; the commit checked out in the current folder and whether files differed from it (None outside git); UTC
      time; seconds; and the command, with paths outside the current folder cut to their last name.

    Example:
      >>> provenance(seconds=2.5)["seconds"]
      2.5
    """
    import jax

    status = _git("status", "--porcelain")
    return {
        **{package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "git_commit": _git("rev-parse", "--verify", "HEAD"),
        "git_dirty": None if status is None else status != "",
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "command": _command(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Model name of the processor, or the architecture where the system does not tell."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    """Ask git about the current folder; None where there is no git, no repository or no answer."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _command() -> str:
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    module = specification.name.removesuffix(".__main__") if specification else ""
    program = ["python", "-m", module] if module else ["python", pathlib.PurePath(sys.argv[0]).name]
    return shlex.join([*filter(None, program), *map(_without_folders, sys.argv[1:])])


def _without_folders(argument: str) -> str:
    """Cut every path that names a folder of this machine: relative if inside the current folder, else its last name."""
    here = f"{pathlib.Path.cwd().as_posix()}/"

    def cut(match: re.Match[str]) -> str:
        path = match[0].replace("\\", "/")
        return path.removeprefix(here) if path.startswith(here) else pathlib.PurePosixPath(path).name

    return PATHS.sub(cut, argument)
