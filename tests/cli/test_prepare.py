"""`scaling-jax prepare` as it is typed."""

import pytest

from scaling_jax.cli.main import main


def test_show_lists_tasks_and_prints_examples(capsys):
    assert main(["prepare", "--show"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("lab_translation", "jsonl", "parallel_text", "plain_text"))
    assert main(["prepare", "--show", "lab_translation", "--examples", "2"]) == 0
    printed = capsys.readouterr().out
    assert "lab_translation_v1" in printed and printed.count("\ntargets") == 2
    assert main(["prepare", "--show", "lab_translation", "--gin", "lab.seed=4"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] != printed.splitlines()[2:]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "x"], "no configuration"),
        (["--gin_file", "gin_configs/tasks/lab_translation.gin"], "--out is missing"),
        (["--gin_file", "nowhere.gin", "--out", "x"], "no gin file nowhere.gin"),
        (["--gin_file", "gin_configs/tasks/jsonl.gin", "--out", "x"], "jsonl.train is not set"),
        (
            ["--gin_file", "gin_configs/tasks/jsonl.gin", "--gin", "TRAIN='gone.jsonl'", "--out", "x"],
            "no file gone.jsonl",
        ),
        (
            ["--gin_file", "gin_configs/tasks/lab_translation.gin", "--gin", "lab.concept=9", "--out", "x"],
            "concepts",
        ),
        (["--show", "lab_headlines"], "did you mean 'lab_headline'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(flags, message, capsys, tmp_path, monkeypatch):
    flags = [str(tmp_path / "x") if flag == "x" else flag for flag in flags]
    assert main(["prepare", *flags]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
    assert "In call to configurable" not in errors


def test_files_of_unequal_length(capsys, tmp_path):
    (tmp_path / "a").write_text("one\ntwo\n")
    (tmp_path / "b").write_text("eins\n")
    bindings = [f"TRAIN=('{tmp_path}/a', '{tmp_path}/b')", f"PRETRAIN='{tmp_path}/a'"]
    flags = [part for binding in bindings for part in ("--gin", binding)]
    assert (
        main(
            [
                "prepare",
                "--gin_file",
                "gin_configs/tasks/parallel_text.gin",
                "--out",
                str(tmp_path / "x"),
                *flags,
            ]
        )
        == 2
    )
    assert "b has 1 lines and" in capsys.readouterr().err
