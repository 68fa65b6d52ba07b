"""Safetensors files written by hand, whole and damaged."""

import json
import struct


def rewrite(folder, header, content):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content)


def damaged(damage):
    """(header, bytes) of a file of two tensors and an empty one, damaged in one way; None is none."""
    places = {"alpha": [0, 16], "beta": [16, 32], "empty": [16, 16]}
    content = bytes(range(32))
    if damage == "overlap":
        places["beta"], content = [8, 24], content[:24]
    elif damage == "same":
        places["beta"], content = [0, 16], content[:16]
    elif damage == "hole":
        places["beta"], content = [20, 36], content + bytes(4)
    elif damage == "hole_first":
        places, content = {"alpha": [4, 20], "beta": [20, 36]}, content + bytes(4)
    elif damage == "after":
        content += bytes(3)
    elif damage == "beyond":
        content = content[:-1]
    shapes = {"alpha": [4], "beta": [2, 2], "empty": [0, 3]}
    header = {
        name: {"dtype": "F32", "shape": shapes[name], "data_offsets": place} for name, place in places.items()
    }
    return header, content
