"""How XLA compiles for an experiment: programs are kept on disk, and short runs compile faster."""

import mmap
import os
import pathlib
import platform
import re
import sys
import zlib
from importlib import resources

import jax

KEPT = {  # every program is kept, however small or quick to compile; environment variables take precedence, as in JAX
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
UNOPTIMISED = "jax_disable_most_optimizations"
FASTER = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")  # halve XLA's compile time


def keep_compilations(keep: bool = True) -> bool:
    """Keep compiled programs on disk, so that an experiment that is run again need not recompile.

    On its second run, `experiments.ladder --smoke` takes 4 s of processor time instead of 14 (3 s instead of 10
    on two cores). The results are the same bits. Its cache has 0.6 MB.

    The cache is the folder $JAX_COMPILATION_CACHE_DIR if that is set. Otherwise, on Linux, each kind of processor has a folder
    in $XDG_CACHE_HOME/convlab/xla or ~/.cache/convlab/xla, which may be deleted at any time. CONVLAB_CACHE=0 turns the cache
    off. If the folder cannot be created or written, the experiment runs without a cache.

    Args:
      keep: Whether programs are kept. If False, everything is recompiled.

    Returns:
      Whether programs are kept.
    """
    wanted = keep and os.environ.get("CONVLAB_CACHE") != "0" and jax.config.values["jax_enable_compilation_cache"]
    folder = _cache_folder() if wanted else None
    jax.config.update("jax_enable_compilation_cache", folder is not None)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", folder)
        for name, value in KEPT.items():
            if name.upper() not in os.environ:
                jax.config.update(name, value)
    return folder is not None


def compile_faster() -> None:
    """Make XLA compile faster and optimise less, in this process and its children.

    It must be called before JAX computes anything. The flags are those of XLA in JAX 0.10. Flags that the environment sets, or
    that the installed XLA does not have, are left out.
    """
    present = os.environ.get("XLA_FLAGS", "")
    new = [flag for flag in FASTER if flag.partition("=")[0] not in present and is_flag(flag)]
    os.environ["XLA_FLAGS"] = " ".join(filter(None, [present, *new]))


def is_flag(flag: str) -> bool:
    """Return True if the installed XLA has a flag. An unknown flag would make XLA abort the process."""
    name = flag.strip("-").partition("=")[0].encode() + b"\0"  # the whole name: old flags remain as parts of other strings
    for library in pathlib.Path(str(resources.files("jaxlib"))).glob("*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(name) >= 0:
                return True
    return False


def _cache_folder() -> str | None:
    """Return the folder of the compilation cache, or None if there is none."""
    configured = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if configured and "://" in configured:  # a cloud storage address, which JAX opens itself
        return configured
    if not configured and not sys.platform.startswith("linux"):  # on other systems we cannot distinguish kinds of processors
        return None
    try:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(configured or pathlib.Path(home, "convlab", "xla", _processor()))
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


def _processor() -> str:
    """Return a name for the kind of processor. Code compiled for one kind may not run on another kind."""
    flags = re.search(r"^(flags|Features)\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{platform.machine()}-{zlib.crc32(flags[2].encode()):08x}" if flags else platform.machine()
