"""Process settings for speed on CPU, in one place, applied before JAX starts.

The flags were measured (docs/performance.md); they are experimental in XLA, which aborts on a
flag that it no longer knows, so each jaxlib is asked once whether it starts with them.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

from scaling_jax import files

CPU_XLA_FLAGS = ("--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT",)
# Large pages for XLA's big temporary buffers; read by the C library when a process starts.
MALLOC_TUNABLE = "glibc.malloc.hugetlb=1"


def cache_folder() -> Path:
    """Where compiled programs and what was learnt of this machine are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "scaling_jax"


def worker_environment() -> dict[str, str]:
    """The environment for a new training process on this machine."""
    environment = dict(os.environ)
    environment["XLA_FLAGS"] = _xla_flags(environment.get("XLA_FLAGS", ""))
    tunables = environment.get("GLIBC_TUNABLES", "")
    if "hugetlb" not in tunables:
        environment["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, MALLOC_TUNABLE)))
    return environment


def prepare_process() -> None:
    """Sets XLA's flags and the compilation cache of this process; call before any JAX computation."""
    os.environ["XLA_FLAGS"] = _xla_flags(os.environ.get("XLA_FLAGS", ""))
    keep_compiled()


def keep_compiled() -> None:
    """Keeps the programs that this process compiles for the next one."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _xla_flags(present: str) -> str:
    wanted = [flag for flag in CPU_XLA_FLAGS if flag.split("=")[0] not in present]
    if not wanted or not _accepted(tuple(wanted)):
        return present
    return " ".join(filter(None, (present, *wanted)))


def _accepted(flags: tuple[str, ...]) -> bool:
    """Whether the installed jaxlib starts with these flags; asked once per version."""
    record = cache_folder() / f"xla_flags-{importlib.metadata.version('jaxlib')}.json"
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        known = {}
    key = " ".join(flags)
    if key not in known:
        environment = {**os.environ, "XLA_FLAGS": key, "JAX_PLATFORMS": "cpu"}
        probe = [sys.executable, "-c", "import jax; jax.devices()"]
        known[key] = subprocess.run(probe, env=environment, capture_output=True).returncode == 0
        files.write_json(record, known)
    return known[key]
