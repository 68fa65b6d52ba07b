"""What one test binds in gin is not what the next one's methods begin with."""

import gin
import pytest


@pytest.fixture(autouse=True)
def no_bindings():
    gin.clear_config()
    yield
    gin.clear_config()
