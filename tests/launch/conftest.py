"""Launchers are started as from a terminal."""

import signal

import pytest


@pytest.fixture(autouse=True)
def interrupts_arrive():
    """A shell's background jobs ignore SIGINT, and so do all that they start: tests are often one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
