"""Instructions and BELLE's evaluation set: forms that are read, and lines that are refused."""

import gzip
import json
import os
from pathlib import Path

import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry
from scaling_jax.tasks.json_records import records

NO_CUT = {"cut_dev": 0, "cut_test": 0}


@pytest.fixture
def write(tmp_path):
    def make(content, name="data.json"):
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return make


def _rows(task, split="train", **settings):
    source = registry.find(task).call(**settings)
    return [row for block in source.splits[split]() for row in zip(*block.values(), strict=True)]


ALPACA = [
    {"instruction": "Name a colour.", "input": "", "output": "Red."},
    {"instruction": "Translate.", "input": "rouge", "output": "red"},
    {"instruction": "Count to two.", "output": "one\ntwo"},
]
PAIRS = [
    ("Human: Name a colour.\n\nAssistant: ", "Red."),
    ("Human: Translate.\nrouge\n\nAssistant: ", "red"),
    ("Human: Count to two.\n\nAssistant: ", "one\ntwo"),
]


def test_an_array_and_lines_give_the_same(write, tmp_path):
    lines = "\n\n".join(json.dumps(record) for record in ALPACA) + "\n"
    assert _rows("instructions", train=write(ALPACA), **NO_CUT) == PAIRS
    assert _rows("instructions", train=write(lines), **NO_CUT) == PAIRS
    assert _rows("instructions", train=write("\n \n" + json.dumps(ALPACA)), **NO_CUT) == PAIRS
    packed = tmp_path / "data.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(ALPACA).encode()))
    assert _rows("instructions", train=str(packed), **NO_CUT) == PAIRS


def test_the_prompt_is_settable(write):
    rows = _rows("instructions", train=write(ALPACA), template="Q {source} A", separator=" | ", **NO_CUT)
    assert rows[1] == ("Q Translate. | rouge A", "red")
    with pytest.raises(InputError, match="instructions.template = 'Q': must contain {source}"):
        _rows("instructions", train=write(ALPACA), template="Q", **NO_CUT)


def test_what_is_said_is_not_read_as_a_template(write):
    rows = _rows("instructions", train=write([{"instruction": "{source}", "output": "{source}"}]), **NO_CUT)
    assert rows == [("Human: {source}\n\nAssistant: ", "{source}")]


def test_every_answer_of_a_conversation_is_an_example(write):
    turns = [("human", "Hi"), ("assistant", "Hello"), ("human", "And?"), ("gpt", "Fine.")]
    record = {"id": "1", "conversations": [{"from": who, "value": text} for who, text in turns]}
    assert _rows("instructions", train=write([record]), **NO_CUT) == [
        ("Human: Hi\n\nAssistant: ", "Hello"),
        ("Human: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant: ", "Fine."),
    ]


def test_every_instance_of_a_seed_task_is_an_example(write):
    instances = [{"input": "fast", "output": "quick"}, {"input": "", "output": "none"}]
    record = {"id": "seed_task_0", "name": "s", "instruction": "A synonym.", "instances": instances}
    assert _rows("instructions", train=write([record]), **NO_CUT) == [
        ("Human: A synonym.\nfast\n\nAssistant: ", "quick"),
        ("Human: A synonym.\n\nAssistant: ", "none"),
    ]


def test_dev_and_test_are_cut_out_of_train(write):
    file = write([{"instruction": f"i{number}", "output": f"o{number}"} for number in range(20)])
    settings = {"train": file, "cut_dev": 3, "cut_test": 2}
    rows = {split: set(_rows("instructions", split, **settings)) for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in rows.items()} == {"train": 15, "dev": 3, "test": 2}
    assert len(set.union(*rows.values())) == 20


def test_what_a_store_depends_on(write):
    identities = [
        registry.find("instructions").call(train=write(ALPACA), **NO_CUT, **settings).identity
        for settings in ({}, {"template": "{source}"}, {"separator": " "})
    ]
    assert identities[0] != identities[1] and identities[0] != identities[2]


TURN = {"from": "human", "value": "Hi"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"instruction": "a", "output": "b"}\n{"instruction": \n', r"data.json:2:\d+: not JSON"),
        ('[\n {"instruction": "a", "output": "b"},\n {"instruction": }\n]', "data.json:3:18: not JSON"),
        ('[\n {"instruction": "a", "output": "b"}\n {"instruction": "a"}]', "data.json:3:2: not JSON"),
        ('[\n {"instruction": "a", "output": "b"},\n]', "data.json:3:1: not JSON"),
        ('[\n {"instruction": "a", "output": "b"}\n', "data.json:2:37: not JSON"),
        ('[{"instruction": "a", "output": "b"}]\n x', "data.json:2: there is more after the array's end"),
        ("[\n\n 3]", "data.json:3: a JSON object is needed, this is a int"),
        ("[]", "data.json: the file is empty"),
        ("", "data.json: the file is empty"),
        ('\n{"Instruction": "a", "output": "b"}', "data.json:2: no field 'instruction'; did you mean"),
        ('{"instruction": "a", "input": "b"}', "data.json:1: no field 'output'; known: input, instruction"),
        ('{"instruction": "a", "input": 3, "output": "b"}', "field 'input' must be a string, this is a int"),
        ('{"instruction": "a", "output": null}', "data.json:1: field 'output' must be a string"),
        (
            [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": " "}],
            "data.json:6: the answer is empty; mend it, or bind instructions.empty = 'leave_out'",
        ),
        ('{"instruction": "a", "output": "\\ud83d"}', r"data.json:1: field 'output' is not Unicode text"),
        ('[\n {"instruction": "a", "output": ' + "9" * 5000 + "}]", "data.json:2: not JSON that can be read"),
        ("[" * 100_000, "data.json:1: not JSON that can be read"),
        ('{"instruction": " ", "output": "b"}', "data.json:1: the instruction is empty"),
        ('{"instruction": "a", "instances": {}}', "'instances' must be a list of objects"),
        ({"conversations": []}, "'conversations' must be a list of objects, one at least"),
        ('{"conversations": ["Hi"]}', "'conversations' must be a list of objects"),
        (json.dumps({"conversations": [TURN]}), "ends without an answer of the assistant"),
        (json.dumps({"conversations": [TURN, TURN]}), "turn 2 .* is from 'human', 'assistant' is needed"),
        (json.dumps({"conversations": [{"from": "human"}]}), "data.json:1: no field 'value'"),
    ],
)
def test_bad_files_are_named_by_line(write, content, said):
    if isinstance(content, dict):
        content = json.dumps(content)
    with pytest.raises(InputError, match=said):
        _rows("instructions", train=write(content), **NO_CUT)


def test_empty_answers_may_be_left_out(write):
    file = write([*ALPACA, {"instruction": "a", "output": ""}, {"instruction": "", "output": "b"}])
    source = registry.find("instructions").call(train=file, empty="leave_out", **NO_CUT)
    assert [row for block in source.splits["train"]() for row in zip(*block.values(), strict=True)] == PAIRS
    assert "2 of 5 pairs have an empty side and are left out" in source.notes[0]
    with pytest.raises(InputError, match="instructions.empty = 'skip': must be 'refuse' or 'leave_out'"):
        registry.find("instructions").call(train=file, empty="skip", **NO_CUT)


def test_lines_of_an_array_are_counted(write):
    file = write('\n[{"a": 1}, {"a":\n2},\n\n{"a": 3}\n]\n')
    assert list(records(Path(file))) == [(2, {"a": 1}), (2, {"a": 2}), (5, {"a": 3})]


BELLE = [
    {"question": "多少个省？", "std_answer": "34个", "class": "closed\xa0qa"},
    {"question": "写一首诗", "std_answer": "", "class": "generation"},
]


def test_questions_keep_their_class_and_empty_answers(write):
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in BELLE)
    source = registry.find("belle_eval").call(test=write(lines))
    assert list(source.splits) == ["test"] and source.target_language == "zh"
    assert list(source.splits["test"]()) == [
        {
            "inputs": ["Human: 多少个省？\n\nAssistant: ", "Human: 写一首诗\n\nAssistant: "],
            "targets": ["34个", ""],
            "class": ["closed qa", "generation"],
            "question": ["多少个省？", "写一首诗"],
        }
    ]
    assert source.notes == ("test: 1 of 2 questions have no reference answer",)
    assert registry.find("belle_eval").columns == ("class", "question")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "q", "answer": "a", "class": "c"}, "data.json:1: no field 'std_answer'"),
        ({"question": " ", "std_answer": "a", "class": "c"}, "data.json:1: field 'question' is empty"),
        ({"question": "q", "std_answer": "a", "class": "\xa0"}, "data.json:1: field 'class' is empty"),
        ({"question": "q", "std_answer": 1, "class": "c"}, "field 'std_answer' must be a string"),
    ],
)
def test_bad_questions_are_named_by_line(write, record, said):
    with pytest.raises(InputError, match=said):
        registry.find("belle_eval").call(test=write(json.dumps(record)))


@pytest.mark.skipif(
    "SCALING_JAX_DATA" not in os.environ, reason="SCALING_JAX_DATA (the folder of real data) is not set"
)
def test_the_published_files():
    folder = Path(os.environ["SCALING_JAX_DATA"])
    alpaca = [str(folder / f"alpaca_demo/alpaca_{language}_demo.json") for language in ("zh", "en")]
    seeds = str(folder / "belle/zh_seed_tasks.json")
    rows = _rows("instructions", train=[*alpaca, seeds], **NO_CUT)
    assert len(rows) == 1000 + 999 + 175
    assert rows[0][0] == "Human: 识别并解释给定列表中的两个科学理论：细胞理论和日心说。\n\nAssistant: "
    source = registry.find("belle_eval").call(test=str(folder / "belle/eval_set.json"))
    assert source.notes == ("test: 369 of 1,000 questions have no reference answer",)
    classes = {name for block in source.splits["test"]() for name in block["class"]}
    assert len(classes) == 10 and "closed qa" in classes
