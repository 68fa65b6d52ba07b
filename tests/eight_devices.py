"""Code run on eight simulated devices, which a process that has started JAX can no longer have."""

import json
import os
import subprocess
import sys
from pathlib import Path


def result(code, *arguments):
    """What Python code prints last, as JSON, in a process of its own with eight devices."""
    environment = os.environ | {
        # Less optimised machine code: what is tested is how arrays are split.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
