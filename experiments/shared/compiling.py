"""How XLA compiles for an experiment: what it compiles is kept for the next run, and a short run has it compile faster."""

import mmap
import os
import pathlib
import platform
import re
import sys
import zlib
from importlib import resources

import jax

KEPT = {  # all that is compiled is kept, small and quick as it may be; a variable of the environment goes first, as in JAX
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
UNOPTIMISED = "jax_disable_most_optimizations"
FASTER = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")  # halve XLA's compile time


def keep_compilations(keep: bool = True) -> bool:
    """Keep on disk what XLA compiles, so that an experiment that runs again, or goes on, need not compile it again.

    Run again, `experiments.ladder --smoke` takes 5 s of processor time, not 15, and the ladder on 400 images with one seed and
    100 steps 17 s, not 66 (on two cores that others used too: 10 and 15 s after 26 and 39, 28 and 36 after 131 and 138). The
    results are the same bits; that ladder keeps 2 MB.

    It lies in $JAX_COMPILATION_CACHE_DIR if that is set; else, on Linux, in a folder for each kind of processor in
    $XDG_CACHE_HOME/convlab/xla or ~/.cache/convlab/xla, which may be deleted at any time. CONVLAB_CACHE=0 turns it off. Where
    the folder cannot be made or written, the experiment runs without.

    Args:
      keep: False has all compiled anew.

    Returns:
      Whether it is done.
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
    """Have XLA compile faster and optimise less, in this process and those it starts; call it before JAX computes anything.

    The flags are those of XLA in JAX 0.10. Those that the environment sets, or that the installed XLA lacks, are left out.
    """
    given = os.environ.get("XLA_FLAGS", "")
    new = [flag for flag in FASTER if flag.partition("=")[0] not in given and _is_flag(flag)]
    os.environ["XLA_FLAGS"] = " ".join(filter(None, [given, *new]))


def _is_flag(flag: str) -> bool:
    """Return True if the installed XLA has a flag. For one that it lacks it would abort the process."""
    name = flag.strip("-").partition("=")[0].encode() + b"\0"  # whole: old names stay as fields of messages
    for library in pathlib.Path(str(resources.files("jaxlib"))).glob("*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(name) >= 0:
                return True
    return False


def _cache_folder() -> str | None:
    """Where compilations are kept; None where there is no such place."""
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if given and "://" in given:  # of a store in the cloud, which JAX knows to open
        return given
    if not given and not sys.platform.startswith("linux"):  # elsewhere processors are not told apart
        return None
    try:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(given or pathlib.Path(home, "convlab", "xla", _processor()))
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


def _processor() -> str:
    """Tell kinds of processors apart: code that was compiled for one may not run on another that shares the folder."""
    flags = re.search(r"^(flags|Features)\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{platform.machine()}-{zlib.crc32(flags[2].encode()):08x}" if flags else platform.machine()
