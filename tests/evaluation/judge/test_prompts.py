"""The prompts that come with the package, and files of one's own."""

import json

import pytest

from scaling_jax.errors import InputError
from scaling_jax.evaluation.judge import prompts

FREE = {"generation", "brainstorming", "rewrite"}
AGAINST = {
    "math", "code", "classification", "extract", "open_qa", "closed_qa", "summarization", "translation"
}  # fmt: skip


@pytest.mark.parametrize("language", ["zh", "en"])
def test_eleven_classes_as_in_the_paper(language):
    loaded = prompts.load(language)
    assert {name for name, entry in loaded.classes.items() if entry.reference} == AGAINST
    assert {name for name, entry in loaded.classes.items() if not entry.reference} == FREE
    assert len({entry.criterion for entry in loaded.classes.values()}) == 11
    mark = {"zh": "得分: ", "en": "Score: "}[language]
    assert all(mark in loaded.render(name, "q", "r", "a") for name in loaded.classes)
    assert len(loaded.identity) == 8


def test_what_is_put_in_is_not_read_as_a_frame():
    rendered = prompts.load("zh").render("math", "{answer}", "{question}", "{reference}")
    assert all(rendered.count(field) == 1 for field in ("{answer}", "{question}", "{reference}"))


def test_one_spelling_of_a_class():
    assert {prompts.class_name(text) for text in ("Open QA", "open-qa", "open\xa0qa", " open_qa ")} == {
        "open_qa"
    }


def _file(folder, **changed):
    content = {
        "with_reference": "{criterion}{question}{reference}{answer}",
        "without_reference": "{criterion}{question}{answer}",
        "classes": {"My Class": {"reference": False, "criterion": "c"}},
    }
    path = folder / "mine.json"
    path.write_text(json.dumps(content | changed), encoding="utf-8")
    return str(path)


def test_a_file_of_ones_own(tmp_path):
    loaded = prompts.load(_file(tmp_path))
    assert loaded.render("my_class", "q", "r", "a") == "cqa" and loaded.name == "mine.json"
    assert loaded.identity != prompts.load(_file(tmp_path, language="de")).identity


def test_prompts_of_belle_as_they_are_published(tmp_path):
    path = tmp_path / "eval_prompt.json"
    lines = [{"class": "open QA", "prompt": "比较。"}, {"class": "rewrite", "prompt": "改写。"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    loaded = prompts.load(str(path))
    assert {name: entry.reference for name, entry in loaded.classes.items()} == {
        "open_qa": True,
        "rewrite": False,
    }
    end = "。请针对模型回答给出得分，顺便给出理由："
    assert loaded.render("open_qa", "问", "答", "话") == f"比较。 问 标准回答:答 模型回答：'话'{end}"
    assert loaded.render("rewrite", "问", "答", "话") == f"改写。 问 模型回答：'话'{end}"
    lines[1].pop("prompt")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    with pytest.raises(InputError, match="eval_prompt.json:2:1: not JSON"):
        prompts.load(str(path))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"with_reference": "{criterion}{question}{answer}"}, "'with_reference' must hold .*{reference}"),
        ({"without_reference": "{criterion}{question}{answer}{answer}"}, "each once"),
        ({"without_reference": 3}, "must be a text"),
        ({"classes": []}, "'classes' must be an object"),
        ({"classes": {"a": {"criterion": "c"}}}, "class 'a' must be an object with a text 'criterion'"),
        ({"classes": {"a": {"reference": True}}}, "class 'a' must be"),
    ],
)
def test_files_of_another_form(tmp_path, changed, said):
    with pytest.raises(InputError, match=said):
        prompts.load(_file(tmp_path, **changed))
