"""Data sets in the format of TensorFlow Datasets, and WMT's file formats, written for tests."""

import tarfile
from pathlib import Path


def write_tfds(data_dir, name, features, splits, config=None, version="1.0.0", file_format=None):
    """Writes `data_dir/name[/config]/version` as `tfds build` does: TFRecords and their description.

    `features` is a tfds FeaturesDict, `splits` {split: list of examples}.
    """
    import tensorflow_datasets as tfds

    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        features=features,
        split_datasets={split: list(enumerate(examples)) for split, examples in splits.items()},
        config=config,
        data_dir=data_dir,
        file_format=file_format,
    )
    return Path(str(builder.data_path))


def write_sacrebleu_xml(folder: Path, name: str, pair: str, source: list[str], targets: dict[str, list[str]]):
    """The raw file that sacrebleu downloads for a set of 2021 or later, with references of several people."""
    from sacrebleu.dataset import DATASETS

    dataset, (from_language, to_language) = DATASETS[name], pair.split("-")

    def segments(lines):
        return "".join(f'<seg id="{number}">{line}</seg>' for number, line in enumerate(lines, 1))

    references = "".join(
        f'<ref lang="{to_language}" translator="{person}"><p>{segments(lines)}</p></ref>'
        for person, lines in targets.items()
    )
    path = folder / name / "raw" / dataset.langpairs[pair][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<dataset id="x"><doc origlang="{from_language}" id="d"><src lang="{from_language}"><p>'
        f"{segments(source)}</p></src>{references}</doc></dataset>"
    )
    _write_archives(folder / name / "raw", dataset)


def write_sacrebleu_cache(folder: Path, name: str, pair: str, source: list[str], target: list[str]):
    """The raw files that sacrebleu downloads for a set of before 2021, in its cache."""
    from sacrebleu.dataset import DATASETS

    dataset = DATASETS[name]
    raw = folder / name / "raw"
    for path, lines in zip(dataset.langpairs[pair], (source, target), strict=True):
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        segments = "".join(f'<seg id="{number}">{line}</seg>\n' for number, line in enumerate(lines, 1))
        (raw / path).write_text(
            f'<srcset setid="x">\n<doc docid="d" genre="news" origlang="en">\n{segments}</doc>\n'
        )
    _write_archives(raw, dataset)


def _write_archives(raw, dataset):
    for url in dataset.data:
        with tarfile.open(raw / dataset._get_tarball_filename(url), "w:gz"):
            pass
