"""The provenance of results: versions, hardware, commit, time and command."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys

from convlab.report.arguments import check_arguments

PACKAGES = ("convlab-jax", "jax", "jaxlib", "flax", "optax", "numpy")
PATHS = re.compile(
    r"(?:(?<![\w./~-])|(?<=^-\w))"  # The start of a path: not inside a relative path, but after an option such as -o.
    r"(?:/|~\w*/|(?:\.\./)+|[A-Za-z]:[\\/])"  # The prefixes that lead out of the current folder.
    r"[^=,:;'\"()\[\]{}]*"
)


def provenance(seconds: float | None = None) -> dict[str, str | int | float | bool | None]:
    """Record the facts that are needed to repeat a run and to judge its times.

    The record holds no names of hosts, users or folders.

    Args:
      seconds: The duration of the experiment in seconds.

    Returns:
      A flat mapping. It holds the versions of packages (None if not installed), the platform, the processor and the number of
      cores. It holds JAX's backend, device kind and number of devices. It holds the commit checked out in the current folder
      and whether files differ from it (None outside of git), the UTC time, `seconds` and the command. In the command, paths
      outside of the current folder are shortened to their last part.

    Raises:
      TypeError: `seconds` is no number.
      ValueError: `seconds` is negative or not finite.

    Example:
      >>> provenance(seconds=2.5)["seconds"]
      2.5
    """
    import jax

    check_arguments(seconds=seconds)
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
    """Return the version of a package, or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the model name of the processor, or the architecture if the model is unknown."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the current folder, or None if it fails."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _command() -> str:
    """Return the command line of the current process."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    module = specification.name.removesuffix(".__main__") if specification else ""
    program = ["python", "-m", module] if module else ["python", pathlib.PurePath(sys.argv[0]).name]
    return shlex.join([*filter(None, program), *map(_without_folders, sys.argv[1:])])


def _without_folders(argument: str) -> str:
    """Shorten the absolute paths in an argument.

    A path inside the current folder becomes relative. Any other path is shortened to its last part.
    """
    here = f"{pathlib.Path.cwd().as_posix()}/"

    def cut(match: re.Match[str]) -> str:
        path = match[0].replace("\\", "/")
        return path.removeprefix(here) if path.startswith(here) else pathlib.PurePosixPath(path).name

    return PATHS.sub(cut, argument)
