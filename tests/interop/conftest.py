"""Every model of `cases` as a Hugging Face folder, and copies that a test may damage."""

import json
import struct

import pytest

from scaling_jax.interop import hugging_face
from tests.interop import cases


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every case as a Hugging Face folder."""
    room = tmp_path_factory.mktemp("folders")
    for name, config in cases.CASES.items():
        hugging_face.write_model(room / name, config, cases.parameters(name))
    return room


@pytest.fixture
def copied(folders, tmp_path):
    """A copy of one that a test may damage, as (folder, header of its tensors, their bytes)."""

    def copy(name):
        for file in (folders / name).iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        content = (tmp_path / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        return tmp_path, json.loads(content[8 : 8 + length]), content[8 + length :]

    return copy
