"""Random numbers as a pure function of their place: (seed, stream, index, number).

A generator with a state would make example i depend on how many came before it. Here every draw is
a hash of where it stands, so any slice of any split can be made alone, in any order, on any machine,
and NumPy's own generators may change between versions without changing the data.
The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def stream_key(*names: object) -> np.uint64:
    """The key of a named stream, such as `stream_key(seed, "sentences", "train")`."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def child_keys(keys: np.ndarray | np.uint64, numbers: np.ndarray) -> np.ndarray:
    """Keys of the `numbers`-th children of `keys` (uint64; the two are broadcast)."""
    numbers = np.asarray(numbers, np.uint64)
    return _mix(np.asarray(keys, np.uint64) ^ _mix(numbers + _GOLDEN))


def uniform(keys: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each key: float64 [keys, count]."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    bits = _mix(np.asarray(keys, np.uint64)[:, None] + steps)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
