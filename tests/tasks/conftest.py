"""Every test of a task begins without the gin bindings of the one before."""

import gin
import pytest


@pytest.fixture(autouse=True)
def no_bindings():
    gin.clear_config()
