"""Tasks of seqio as ours, and ours as seqio's."""

import sys

import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry
from tests.tasks.written import write_tfds

TASKS = """
import functools
import seqio
import tensorflow as tf

def pairs(split, shuffle_files=False):
    return tf.data.Dataset.from_tensor_slices(
        {"question": [f"{split} Frage 1", f"{split} Frage ü"], "answer": ["Antwort 1", "Antwort 2"]}
    )

def renamed(dataset):
    return dataset.map(lambda row: {"inputs": "ask: " + row["question"], "targets": row["answer"]})

features = {name: seqio.Feature(seqio.ByteVocabulary()) for name in ("inputs", "targets")}
source = seqio.FunctionDataSource(pairs, splits=("train", "validation"))
ends = [seqio.preprocessors.append_eos]
dropped = functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False)
for name, tokenize in (("my_questions", seqio.preprocessors.tokenize), ("my_dropped", dropped)):
    steps = [renamed, tokenize, *ends]
    seqio.TaskRegistry.add(name, source=source, preprocessors=steps, output_features=features)
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    folder = tmp_path_factory.mktemp("module")
    (folder / "my_seqio_tasks.py").write_text(TASKS)
    sys.path.insert(0, str(folder))
    yield "my_seqio_tasks"
    sys.path.remove(str(folder))


def test_a_seqio_task_by_its_name(module):
    source = registry.find("seqio_pairs").call(task="my_questions", module=module)
    assert list(source.splits) == ["train", "dev"]
    (block,) = source.splits["dev"]()
    assert block["inputs"] == ["ask: validation Frage 1", "ask: validation Frage ü"]
    assert block["targets"] == ["Antwort 1", "Antwort 2"]
    documents = registry.find("seqio_documents").call(task="my_questions")
    assert next(documents.splits["train"]())["targets"] == ["Antwort 1", "Antwort 2"]


def test_what_seqio_does_not_have(module):
    call = registry.find("seqio_pairs").call
    with pytest.raises(InputError, match="seqio_pairs.task is not set"):
        call()
    with pytest.raises(InputError, match="no 'my_question'; did you mean 'my_questions'"):
        call(task="my_question", module=module)
    with pytest.raises(InputError, match="module = 'nowhere_at_all': cannot be imported"):
        call(task="my_questions", module="nowhere_at_all")
    source = call(task="my_dropped", module=module)
    with pytest.raises(InputError, match="its examples have no 'inputs_pretokenized'"):
        list(source.splits["train"]())


def test_our_task_under_its_versioned_name_in_seqio(tmp_path, module):
    tfds = pytest.importorskip("tensorflow_datasets")
    from scaling_jax.tasks import seqio_tasks

    record = {"id": "1", "dialogue": "Ann: Hi!", "summary": "They greet 😀."}
    features = tfds.features.FeaturesDict(dict.fromkeys(record, tfds.features.Text()))
    write_tfds(tmp_path, "samsum", features, dict.fromkeys(("train", "validation", "test"), [record]))
    seqio_tasks.add("samsum", data_dir=str(tmp_path), template="{source}")
    task = seqio_tasks.seqio.get_mixture_or_task("samsum_v1")
    (example,) = task.get_dataset(
        {"inputs": 64, "targets": 64}, split="dev", shuffle=False
    ).as_numpy_iterator()
    vocabulary = task.output_features["targets"].vocabulary
    assert vocabulary.decode(example["inputs"].tolist()) == "Ann: Hi!"
    assert vocabulary.decode(example["targets"].tolist()) == "They greet 😀."
    with pytest.raises(InputError, match="no task 'samsun'; did you mean 'samsum'"):
        seqio_tasks.add("samsun")
