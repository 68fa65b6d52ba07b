"""What every test sees: options, no gin bindings of other modules, and not all of their programs."""

from pathlib import Path

import gin
import jax
import pytest

# Linux gives a process 65,530 of them, and XLA dies where there are no more.
MAPPED_AREAS = 40_000


def pytest_addoption(parser):
    parser.addoption(
        "--require_extras",
        default="",
        metavar="EXTRA[,EXTRA]",
        help="extras of setup.py that this environment must have; without it, missing ones are skipped",
    )


@pytest.fixture(autouse=True, scope="module")
def no_bindings_of_other_modules():
    """Gin's bindings are global: those that another module left would change what is built here."""
    gin.clear_config()


@pytest.fixture(autouse=True, scope="module")
def few_programs_of_other_modules():
    """Compiled programs are areas of memory: of all tests in one process they become too many."""
    yield
    mapped = Path("/proc/self/maps")
    if mapped.exists() and mapped.read_bytes().count(b"\n") > MAPPED_AREAS:
        jax.clear_caches()
