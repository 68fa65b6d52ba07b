"""What `prepare --show` says of every task, and the table in the docs."""

from pathlib import Path

import pytest

from scaling_jax.cli.main import main
from scaling_jax.tasks import registry, showing

DOCS = Path(__file__).parents[2] / "docs" / "tasks.md"
BEGIN, END = "<!-- scaling-jax prepare --show --markdown -->\n", "<!-- end -->\n"
TASKS = registry.all_tasks()


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is_without_data(name):
    said = "\n".join(showing.description(TASKS[name]))
    assert f"{name}_v{TASKS[name].version}" in said
    for field in ("source", "splits", "features"):
        assert f"\n{field}" in said
    # The classes of tasks whose source is a paper have everything that a reader needs.
    if "https://" in TASKS[name].data.source:
        assert TASKS[name].data.get and (TASKS[name].data.prompt or TASKS[name].features == ("targets",))


def test_the_docs_hold_the_table_of_the_registry():
    text = DOCS.read_text("utf-8")
    between = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert between == showing.markdown(TASKS.values()), "run: scaling-jax prepare --show --markdown"


def test_show_without_data_describes_and_ends_with_two(capsys, tmp_path):
    flags = ["--gin", f"wmt14_en_de.data_dir='{tmp_path}'"]
    assert main(["prepare", "--show", "wmt14_en_de", *flags]) == 2
    printed = capsys.readouterr()
    for said in ("wmt14_en_de_v1 (finetuning)", "statmt.org/wmt14", "wmt20 + wmt21 + wmt22", "bleu, chrf"):
        assert said in printed.out
    assert f"{tmp_path}/wmt14_translate/de-en/VERSION" in printed.err and printed.err.count("\n") == 1


def test_show_with_data_prints_counts_and_examples_of_a_scope(capsys, tmp_path):
    for part in ("dev", "devtest"):
        (tmp_path / part).mkdir()
        for code, words in (("fra_Latn", "Un.\nDeux.\n"), ("deu_Latn", "Eins.\nZwei.\n")):
            (tmp_path / part / f"{code}.{part}").write_text(words)
    bindings = [f"flores200.folder='{tmp_path}'", "back/flores200.source='de'", "back/flores200.target='fr'"]
    flags = [part for binding in bindings for part in ("--gin", binding)]
    assert main(["prepare", "--show", "back/flores200", "--examples", "1", *flags]) == 0
    printed = capsys.readouterr().out
    assert "found     dev (2), test (2)" in printed
    assert printed.endswith("inputs    translate German to French: Eins.\ntargets   Un.\n")
    assert main(["prepare", "--show", "flores200", "--examples", "-1", *flags]) == 2
    assert "--examples -1: 0 or more" in capsys.readouterr().err


def test_markdown_is_printed_by_the_verb(capsys):
    assert main(["prepare", "--show", "--markdown"]) == 0
    assert capsys.readouterr().out == showing.markdown(registry.all_tasks().values())
