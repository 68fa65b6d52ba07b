"""Process settings for speed, of every platform, in one place, applied before JAX starts.

Those for CPU were measured (docs/performance.md), those for GPU and TPU are what the makers advise. XLA
aborts on a flag that it does not know any more, so each version is asked once whether it starts with them.
"""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from scaling_jax import files

CPU_XLA_FLAGS = ("--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT",)
# Collectives behind computation: docs.jax.dev/en/latest/gpu_performance_tips.html, NVIDIA's images of JAX.
GPU_XLA_FLAGS = ("--xla_gpu_enable_latency_hiding_scheduler=true",)
# All-gathers of a layer's parameters behind the layer before: openxla.org/xla/flags_guidance.
TPU_FLAGS = (
    "--xla_should_allow_loop_variant_parameter_in_chain=enabled",
    "--xla_should_add_loop_invariant_op_in_chain=enabled",
    "--xla_tpu_enable_ici_ag_pipelining=true",
)
# Without what TPU's compiler keeps beside a program for debuggers; the program is the same.
BARE_TPU_FLAGS = ("--xla_jf_debug_level=0",)
_CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
# Starts XLA's compiler on the CPU, and the TPU's without a TPU: one of a pod would wait for the others.
_START = "import jax; jax.devices()"
_START_TPU = (
    "from jax.experimental import topologies; topologies.get_topology_desc('v5e:2x2', platform='tpu')"
)
# Large pages for XLA's big temporary buffers; read by the C library when a process starts.
MALLOC_TUNABLE = "glibc.malloc.hugetlb=1"
# Of glibc's malloc.h: the parameter of mallopt for the number of heaps.
_M_ARENA_MAX = -8


def cache_folder() -> Path:
    """Where compiled programs and what was learnt of this machine are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "scaling_jax"


def worker_environment() -> dict[str, str]:
    """The environment for a new training process on this machine."""
    environment = dict(os.environ) | _flags(os.environ)
    tunables = environment.get("GLIBC_TUNABLES", "")
    if "hugetlb" not in tunables:
        environment["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, MALLOC_TUNABLE)))
    return environment


def prepare_process() -> None:
    """Sets XLA's flags and the compilation cache of this process; call before any JAX computation."""
    os.environ.update(_flags(os.environ))
    keep_compiled()


def prepare_compiler() -> None:
    """Sets up a process that compiles for TPUs that are not here; call before JAX starts."""
    for flags in (TPU_FLAGS, BARE_TPU_FLAGS):
        os.environ["LIBTPU_INIT_ARGS"] = _with("LIBTPU_INIT_ARGS", os.environ, flags, "libtpu", _START_TPU)
    # The compiler's threads otherwise have a heap each, which keep what was freed: a tenth more. Only glibc
    # has heaps to count.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def keep_compiled() -> None:
    """Keeps the programs that this process compiles for the next one."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _flags(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables with the flags for the platforms that JAX may start here; what is set already stays."""
    asked = environment.get("JAX_PLATFORMS", "")

    def may_start(platforms: tuple[str, ...], packages: tuple[str, ...]) -> bool:
        installed = any(importlib.util.find_spec(package) for package in packages)
        return installed and (not asked or any(name in platforms for name in asked.split(",")))

    xla = CPU_XLA_FLAGS
    if may_start(("cuda", "gpu"), _CUDA_PLUGINS):
        xla += GPU_XLA_FLAGS
    found = {"XLA_FLAGS": _with("XLA_FLAGS", environment, xla, "jaxlib", _START)}
    if may_start(("tpu",), ("libtpu",)):
        found["LIBTPU_INIT_ARGS"] = _with("LIBTPU_INIT_ARGS", environment, TPU_FLAGS, "libtpu", _START_TPU)
    return found


def _with(
    variable: str, environment: Mapping[str, str], flags: tuple[str, ...], package: str, start: str
) -> str:
    """The variable with the flags that are not in it and that the installed package starts with."""
    present = environment.get(variable, "")
    wanted = [flag for flag in flags if flag.split("=")[0] not in present]
    if not wanted or not _accepted(variable, tuple(wanted), package, start):
        return present
    return " ".join(filter(None, (present, *wanted)))


def _accepted(variable: str, flags: tuple[str, ...], package: str, start: str) -> bool:
    """Whether a process starts with these flags; asked once per version of the package."""
    record = cache_folder() / f"xla_flags-{importlib.metadata.version(package)}.json"
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        known = {}
    key = " ".join(flags)
    if key not in known:
        # The other of the two variables may hold what this one asks about.
        environment = {**os.environ, "XLA_FLAGS": "", "LIBTPU_INIT_ARGS": "", variable: key}
        environment |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        done = subprocess.run([sys.executable, "-c", start], env=environment, capture_output=True)
        known[key] = done.returncode == 0
        files.write_json(record, known)
    return known[key]
