"""`scaling-jax infer` as a user calls it."""

import dataclasses
import gzip
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from scaling_jax.cli import progress
from scaling_jax.cli.main import main
from scaling_jax.data.store import VocabularyFile, open_store
from scaling_jax.evaluation.decoding import Decoding, generate
from scaling_jax.evaluation.prompts import Shots, shot_prompts
from scaling_jax.training import bases, checkpoints
from scaling_jax.training.mesh import Layout
from scaling_jax.tuning.lora import LoRA
from tests.evaluation import uncached
from tests.models import tiny as models
from tests.training import tiny

BYTES = VocabularyFile("bytes", 259)
CONFIG = dataclasses.replace(models.CONFIG, vocabulary_size=259)
LINES = ["abc", "", "grün", "A"]
TEXTS = [line for line in LINES if line]
SEARCH = ["--max_new_tokens", "5", "--batch_size", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pretrained and a tuned checkpoint, and stores of their vocabulary."""
    folder = tmp_path_factory.mktemp("infer")
    program, tuned, base = uncached.opened(CONFIG, LoRA(rank=2))
    about = {
        "kind": "pretrained",
        "model": dataclasses.asdict(CONFIG),
        "vocabulary_sha256": BYTES.sha256(),
        "pretrain_tokens": 0,
        "hash": checkpoints.tree_hash(base),
    }
    checkpoints.save(folder / "base", base, about)
    method = {"name": "lora", **dataclasses.asdict(program.method)}
    below = {"path": str(folder / "base"), "hash": about["hash"], "pretrain_tokens": 0}
    checkpoints.save(folder / "lora", tuned, about | {"kind": "tuned", "method": method, "base": below})
    windows, pairs = tiny.write_stores(folder, BYTES)
    (folder / "lines.txt").write_text("\n".join(LINES) + "\n", "utf-8")
    return {"folder": folder, "windows": windows, "pairs": pairs}


def infer(made, checkpoint, *flags, store="pairs"):
    return main(["infer", str(made["folder"] / checkpoint), "--store", made[store], *SEARCH, *flags])


def wanted(made, prompts, **settings):
    """Answers from the checkpoint read by hand."""
    opened = bases.load_tuned(made["folder"] / "lora", Layout())
    decoding = Decoding(max_new_tokens=5, **settings)
    return generate(opened.program, opened.tuned, opened.base, prompts, decoding, BYTES, 0)


def as_ids(text):
    return np.array([byte + 3 for byte in text.encode()], np.int32)


def answers(text):
    return [json.loads(line) for line in text.splitlines()]


def check(found, generated):
    assert [one["inputs"] for one in found] == TEXTS
    for one, expected in zip(found, generated, strict=True):
        text = bytes(token - 3 for token in expected.tokens if token >= 3).decode("utf-8", errors="ignore")
        assert (one["output"], one["tokens"], one["finished"]) == (
            text,
            len(expected.tokens),
            expected.finished,
        )
        assert one["score"] == pytest.approx(expected.score, abs=1e-4)


def test_lines_to_jsonl_file(made, tmp_path, capsys):
    out = tmp_path / "deep" / "out.jsonl"
    flags = [
        "--input",
        str(made["folder"] / "lines.txt"),
        "--out",
        str(out),
        "--strategy",
        "beam",
        "--beams",
        "2",
    ]
    assert infer(made, "lora", *flags) == 0
    check(
        answers(out.read_text("utf-8")),
        wanted(made, [as_ids(text) for text in TEXTS], strategy="beam", beams=2),
    )
    assert "3 answers" in capsys.readouterr().out


def test_jsonl_from_a_stream_to_a_stream(made, monkeypatch, capsys):
    lines = "\n".join(json.dumps({"inputs": text, "other": 1}) for text in TEXTS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert infer(made, "lora", "--strategy", "sample", "--seed", "4") == 0
    generated = wanted(made, [as_ids(text) for text in TEXTS], strategy="sample", seed=4)
    check(answers(capsys.readouterr().out), generated)


def test_shots_are_put_before(made, capsys):
    assert infer(made, "lora", "--input", str(made["folder"] / "lines.txt"), "--shots", "2") == 0
    split = open_store(made["pairs"]).split("train")
    prompts = shot_prompts([as_ids(text) for text in TEXTS], split, BYTES, Shots(2))
    check(answers(capsys.readouterr().out), wanted(made, prompts))


def test_a_pretrained_checkpoint_with_a_store_of_windows(made, capsys):
    assert infer(made, "base", "--input", str(made["folder"] / "lines.txt"), store="windows") == 0
    assert [one["inputs"] for one in answers(capsys.readouterr().out)] == TEXTS


def write(folder, content):
    path = folder / "input"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "flags", "says"),
    [
        (b'{"inputs": "a"}\n\n{"inputs": \n', (), "input:3:12: not JSON"),
        (b'{"inputs": "a"}\n{"text": "b"}\n', (), 'input:2: an object with a text "inputs"'),
        (b'{"inputs": "a"}\n["b"]\n', (), "input:2: an object"),
        (b'{"inputs": "a"}\n{"inputs": "\\ud83d"}\n', (), 'input:2: "inputs" is not Unicode text'),
        (b'{"inputs": "a"}\n{"a": ' + b"[" * 100_000, (), "input:2"),
        (b'\xef\xbb\xbf{"inputs": "a"}\n["b"]\n', (), "input:2: an object"),
        (b"abc\nd\xff\n", (), "input:2: not UTF-8 text (byte 2 of the line is 0xff)"),
        ("abc\nd\n".encode("utf-16-le"), (), "input:1: not text (byte 2 of the line is NUL"),
        (b"abc\n" * 300 + b"abcdefghi\n", ("--batch_size", "1"), "input:301: 9 tokens, the store allows"),
        (b"", (), "holds no text"),
        (b"abc\nabcdefghi\n", (), "input:2: 9 tokens, the store allows inputs of 8"),
        (b"\n \n", (), "holds no text"),
        (b"abc\n", ("--strategy", "beams"), "did you mean 'beam'"),
        (b"abc\n", ("--base", "nowhere"), "nowhere holds no checkpoint"),
        (b"abc\n", ("--shots", "50"), "50 shots"),
    ],
)
def test_bad_input(made, tmp_path, capsys, content, flags, says):
    assert (
        infer(made, "lora", "--input", write(tmp_path, content), "--out", str(tmp_path / "out"), *flags) == 2
    )
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def standard_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "standard input holds no text"),
        (b"\n \n", "standard input holds no text"),
        ("a\n".encode("utf-16-le"), "standard input:1: not text"),
        (b"abcdefghi\n", "standard input:1: 9 tokens"),
    ],
)
def test_bad_standard_input(made, monkeypatch, capsys, content, says):
    standard_input(monkeypatch, content)
    assert infer(made, "lora") == 2
    assert says in capsys.readouterr().err


def test_a_gzipped_file(made, tmp_path, capsys):
    (tmp_path / "lines.gz").write_bytes(gzip.compress((made["folder"] / "lines.txt").read_bytes()))
    assert infer(made, "lora", "--input", str(tmp_path / "lines.gz")) == 0
    assert [one["inputs"] for one in answers(capsys.readouterr().out)] == TEXTS


def nothing_is_opened(*_):
    raise AssertionError("the checkpoint is opened before --out is looked at")


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("input", "is the input itself"),
        ("there", "is there already"),
        ("folder", "is there already"),
        ("before", "before.partial is there already"),
        ("there/out", "there is no folder"),
        ("n" * 300, "cannot write"),
    ],
)
def test_out_is_looked_at_first(made, tmp_path, monkeypatch, capsys, out, says):
    from scaling_jax.evaluation import inference

    path = write(tmp_path, b"abc\n")
    (tmp_path / "there").write_text("kept")
    (tmp_path / "before.partial").write_text("kept")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(inference, "open_checkpoint", nothing_is_opened)
    assert infer(made, "lora", "--input", path, "--out", str(tmp_path / out)) == 2
    assert says in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "kept" and Path(path).read_bytes() == b"abc\n"


def test_a_folder_without_leave_to_write(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda *_: False)  # which root is never told
    assert infer(made, "lora", "--input", write(tmp_path, b"abc\n"), "--out", str(tmp_path / "o")) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_answers_before_a_bad_line_are_kept(made, tmp_path, monkeypatch, capsys):
    standard_input(monkeypatch, b"abc\n" * 16 + b"abcdefghi\n")
    out = tmp_path / "out"
    assert infer(made, "lora", "--out", str(out), "--batch_size", "1") == 2
    printed = capsys.readouterr()
    assert "standard input:17: 9 tokens" in printed.err and "16 answers of before are in" in printed.err
    assert not out.exists() and len(answers(Path(f"{out}.partial").read_text())) == 16


def test_other_bad_input(made, tmp_path, capsys):
    assert infer(made, "lora", "--input", str(tmp_path / "none")) == 2
    assert "cannot read" in capsys.readouterr().err
    _, other = tiny.write_stores(tmp_path)
    arguments = ["infer", str(made["folder"] / "lora"), "--input", str(made["folder"] / "lines.txt")]
    assert main([*arguments, "--store", other]) == 2
    assert "another vocabulary" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "has no tokenizer" in capsys.readouterr().err
    assert infer(made, "lora", "--shots", "1", "--input", arguments[-1], store="windows") == 2
    assert "shots are training examples" in capsys.readouterr().err


def test_long_inputs_are_cut_when_asked(made, tmp_path, capsys):
    path = write(tmp_path, b"abcdefghij\nabc\n")
    assert infer(made, "lora", "--input", path, "--cut") == 0
    printed = capsys.readouterr()
    (first, _) = answers(printed.out)
    (expected,) = wanted(made, [as_ids("abcdefgh")])
    assert first["inputs"] == "abcdefghij"
    assert first["score"] == pytest.approx(expected.score, abs=1e-4)
    assert "1 inputs were longer than the store's and are cut, first" in printed.err


def test_a_converted_checkpoint_brings_its_tokenizer_and_its_length(made, tmp_path, capsys):
    sentencepiece = pytest.importorskip("sentencepiece", reason="the extra `tasks` is not installed")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc d a b c d e"] * 20),
        model_writer=model,
        vocab_size=16,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=3,
    )
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    about = checkpoints.about(made["folder"] / "base")
    about["hugging_face"] = {"eos_token_id": 1, "max_position_embeddings": 10}
    params = jax.device_get(models.parameters(CONFIG))
    checkpoints.save(tmp_path / "converted", params, about, [tmp_path / "spiece.model"])
    path = write(tmp_path, b"a b\n")
    arguments = ["infer", str(tmp_path / "converted"), "--input", path, *SEARCH]
    assert main(arguments) == 0
    (found,) = answers(capsys.readouterr().out)
    assert isinstance(found["output"], str) and found["inputs"] == "a b"
    Path(path).write_text("a b\na b c d e a b c\n")
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert [one.get("beyond", False) for one in answers(printed.out)] == [False, True]
    assert "1 answers went beyond the positions of the model" in printed.err


def test_progress_is_said_every_five_seconds(monkeypatch, capsys):
    clock = iter([0.0, 3.0, 6.0, 8.0, 12.0, 13.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    add = progress.counted("answers", 100)
    for count in (10, 10, 10, 30, 40):
        add(count)
    assert capsys.readouterr().err.splitlines() == [
        "20 of 100 answers, about 24 s left",
        "60 of 100 answers, about 8 s left",
    ]
