"""What every test sees: options, and no gin bindings of other modules."""

import gin
import pytest


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
