"""Data sets that TensorFlow Datasets has prepared: found without TensorFlow, read with it.

`tfds build NAME` downloads and writes a data set to `DATA_DIR/NAME[/CONFIG]/VERSION`; this module never
downloads. TensorFlow is imported when the first example is read.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks.pairs import PairFiles

if TYPE_CHECKING:
    from etils import epath

_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set: its folder (perhaps in a bucket), its name with version, its dataset_info.json."""

    path: "epath.Path"
    label: str
    info: dict[str, Any]

    def identity(self, split: str) -> tuple[str, str]:
        """Name with version, and the hash of how many examples and bytes the split's shards have."""
        entry = self._split(split)
        facts = [entry.get("shardLengths"), entry.get("numBytes")]
        return f"{self.label} {split}", hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _split(self, name: str) -> dict[str, Any]:
        splits = {entry["name"]: entry for entry in self.info.get("splits", ())}
        if name not in splits:
            raise InputError(f"{self.path}: no split {name!r}{did_you_mean(name, splits)}")
        return splits[name]

    def rows(self, split: str, *fields: str) -> Iterator[tuple[Any, ...]]:
        """These fields, text or one number each, of every example, in the order of the files."""
        for batch in self._read(_parsed(self._builder(split), split, fields)):
            yield from zip(*(map(_plain, batch[field].tolist()) for field in fields), strict=True)

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        """Every example as a nested dictionary of NumPy values, in the order of the files."""
        builder = self._builder(split)
        import tensorflow_datasets as tfds

        in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        yield from self._read(builder.as_dataset(split=split, shuffle_files=False, read_config=in_order))

    def _read(self, dataset: Any) -> Iterator[dict[str, Any]]:
        import tensorflow as tf

        try:
            yield from dataset.as_numpy_iterator()
        except tf.errors.OpError as error:
            reason = re.sub(r"\{\{[^}]*\}\}|\[Op:.*", "", str(error.message))  # words of TensorFlow's graph
            raise InputError(f"{self.path}: cannot be read ({' '.join(reason.split())})") from error

    def _builder(self, split: str) -> Any:
        try:
            # The one place that keeps TensorFlow's greetings off the screen and from the accelerator.
            from scaling_jax.tasks import seqio_tasks  # noqa: F401, I001
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise InputError(
                f"{self.path}: reading it needs tensorflow_datasets ({error}): "
                "pip install 'scaling-jax[tasks]'"
            ) from error
        self._split(split)
        builder = tfds.builder_from_directory(self.path)
        if builder.info.file_format.value != "tfrecord":
            raise InputError(
                f"{self.path}: written as {builder.info.file_format.value}; as tfrecord it can be read "
                "(tfds build --file_format=tfrecord)"
            )
        return builder


def default_folder() -> str:
    """Where TensorFlow Datasets keeps its data unless told otherwise."""
    return os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")


def find(name: str, data_dir: str | None, looked: list[str]) -> Prepared | None:
    """The newest prepared version of `name` ("glue/cola"), or None; adds where it looked to `looked`.

    Args:
        name: data set, and its config after a slash.
        data_dir: TFDS folder, which may be in a bucket (gs://...); None is the default one.
        looked: places where it was looked for.

    Raises:
        InputError: its `dataset_info.json` cannot be read.
    """
    from etils import epath  # 0.1 s that no other verb needs to pay

    folder = epath.Path(data_dir or default_folder()).expanduser() / name
    looked.append(f"{folder}/VERSION (TensorFlow Datasets)")
    if not folder.is_dir():
        return None
    versions = [path for path in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    versions = [path for path in versions if (path / "dataset_info.json").exists()]
    if not versions:
        return None
    newest = max(versions, key=lambda path: tuple(map(int, path.name.split("."))))
    try:
        info = json.loads((newest / "dataset_info.json").read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{newest / 'dataset_info.json'}: cannot be read ({error})") from error
    return Prepared(newest, f"{name}:{newest.name}", info)


def pair_files(
    prepared: Prepared,
    split: str,
    fields: Sequence[str],
    make: Callable[..., tuple[str, str]] = lambda source, target: (source, target),
) -> PairFiles:
    """Pairs made of some fields of a prepared split; `make` gets their values."""

    def rows() -> Iterator[tuple[str, str]]:
        return (make(*values) for values in prepared.rows(split, *fields))

    return PairFiles((Path(str(prepared.path)),), rows, prepared.identity(split))


def _parsed(builder: Any, split: str, fields: Sequence[str]) -> Any:
    """Batches of fields from the records themselves: many times as fast as TFDS, example by example."""
    import tensorflow as tf

    known = builder.info.features
    kinds = {field: known[field].get_serialized_info().tf_dtype for field in fields}
    wanted = {
        field: tf.io.FixedLenFeature([], tf.int64 if kind.is_integer else kind)
        for field, kind in kinds.items()
    }
    records = tf.data.TFRecordDataset([str(path) for path in builder.info.splits[split].filepaths])
    return records.batch(_BATCH).map(lambda batch: tf.io.parse_example(batch, wanted)).prefetch(2)


def _plain(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value
