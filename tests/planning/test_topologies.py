"""Names of topologies, and what is said where one cannot be opened."""

import importlib.util
import os

import jax
import pytest

from scaling_jax.errors import InputError
from scaling_jax.planning import topologies
from scaling_jax.planning.chips import GIB, chip_of


@pytest.mark.parametrize(
    "name, sides", [("v4:4x4x4", (4, 4, 4)), ("v5p:4x4x8", (4, 4, 8)), ("v5e:16x16", (16, 16))]
)
def test_names(name, sides):
    chip, found = topologies.parse(name)
    assert found == sides and chip.name == name.split(":")[0]


@pytest.mark.parametrize(
    "name, says",
    [
        ("v9:4x4", "no chip 'v9'; known: v4, v5e, v5p, v6e"),
        ("v5ee:4x4", "did you mean 'v5e'?"),
        ("v5e:4x4x4", "v5e has 2 sides, as in v5e:16x16"),
        ("v4", "v4 has 3 sides, as in v4:4x4x4"),
        ("v4:0x4x4", "v4 has 3 sides"),
    ],
)
def test_names_that_are_none_list_those_known(name, says):
    with pytest.raises(InputError) as refused:
        topologies.prepare(name)
    assert says in str(refused.value) and "v6e such as v6e:16x16, or 'here'" in str(refused.value)


def test_a_smaller_slice_halves_the_longest_sides():
    assert topologies.smaller("v5e:16x16", 16) == "v5e:4x4"
    assert topologies.smaller("v4:4x4x4", 16) == "v4:2x2x4"
    assert topologies.smaller("v5p:4x4x8", 128) == "v5p:4x4x8"
    with pytest.raises(InputError, match="no part of v4:4x4x4 has 24 chips"):
        topologies.smaller("v4:4x4x4", 24)


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs libtpu.*pip install 'scaling-jax\[plan\]'"):
        topologies.prepare("v4:4x4x4")


def test_the_devices_at_hand():
    here = topologies.open_topology("here")
    assert here.count == jax.device_count() and here.chip.peak_flops is None
    assert GIB / 2 < here.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_chips_by_the_names_of_their_devices():
    assert chip_of("TPU v5 lite").name == "v5e" and chip_of("TPU v5").name == "v5p"
    assert chip_of("NVIDIA H100 80GB HBM3").peak_flops == 989e12
    assert chip_of("something new").peak_flops is None
