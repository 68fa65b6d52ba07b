"""Stores made under Apache Beam are those made without it, byte for byte, and a killed call is completed."""

import filecmp
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling_jax import configuration
from scaling_jax.cli import main
from scaling_jax.data.store import open_store
from scaling_jax.errors import InputError
from scaling_jax.tasks import beam, prepare, registry, text_files

ROOT = Path(__file__).parents[2]
GIN = "gin_configs/tasks/lab_translation.gin"
SMALL = [
    "lab.concepts = 256",
    "lab_text.documents = {'train': 600, 'dev': 40}",
    "lab_translation.examples = {'train': 500, 'dev': 60, 'test': 70}",
    "finetune/task_store.feature_lengths = {'inputs': 11, 'targets': 48}",
    "pretrain/task_store.window = 32",
    "sentencepiece.size = 300",
]
# Blocks much smaller than the default, so that few examples make many.
TINY_BLOCKS = 4000


needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="needs the extra: beam"
)


def _prepare(out, bindings=SMALL, gin_file=GIN, **runner):
    registry.load_all()
    configuration.parse([str(ROOT / gin_file)], bindings)
    lines = []
    prepare.prepare(out, say=lines.append, **runner)
    return lines


def _same_bytes(one: Path, other: Path) -> bool:
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files and files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return all(filecmp.cmp(one / file, other / file, shallow=False) for file in files)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stores made without Beam."""
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    out = tmp_path_factory.mktemp("stores")
    _prepare(out)
    return out


@pytest.fixture
def tiny_blocks(monkeypatch):
    # What a task reads comes in blocks of thousands of examples: here of fifty.
    def cut(request, split, whole=beam.text_blocks):
        for texts in whole(request, split):
            size = len(next(iter(texts.values())))
            for begin in range(0, size, 50):
                yield {name: strings[begin : begin + 50] for name, strings in texts.items()}

    monkeypatch.setattr(beam, "text_blocks", cut)
    monkeypatch.setattr(beam, "BLOCK_CHARACTERS", TINY_BLOCKS)


@needs_beam
@pytest.mark.parametrize("options", [(), ("--direct_num_workers=3", "--direct_running_mode=multi_threading")])
def test_the_same_bytes_with_and_without_beam(made, tmp_path, tiny_blocks, options):
    lines = _prepare(tmp_path, runner="DirectRunner", runner_options=options)
    assert _same_bytes(made, tmp_path)
    counts = [int(line.split()[1]) for line in lines if "of them done before" in line]
    assert len(counts) == 2 and min(counts) > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finetune", "pretrain"]  # no blocks are left


@needs_beam
def test_an_interrupted_call_is_completed_from_its_blocks(made, tmp_path, tiny_blocks, monkeypatch):
    done = []

    def stops(path, tokens, save=beam.save_tokens):
        if len(done) == 5:
            raise RuntimeError("the power went")
        done.append(path)
        save(path, tokens)

    with monkeypatch.context() as patched:
        patched.setattr(beam, "save_tokens", stops)
        with pytest.raises(RuntimeError, match="the power went"):
            _prepare(tmp_path, runner="direct")
    assert not list(tmp_path.glob("*/manifest.json"))
    assert sorted(path.exists() for path in done) == [True] * 5
    times = {path: path.stat().st_mtime_ns for path in done}

    kept = {}

    def watch(path, tokens, save=beam.save_tokens):
        kept.update({block: block.stat().st_mtime_ns for block in done if block.exists()})
        save(path, tokens)

    monkeypatch.setattr(beam, "save_tokens", watch)
    lines = _prepare(tmp_path, runner="direct")
    assert kept == times  # what was done is not done again
    assert any("5 of them done before" in line for line in lines)
    assert _same_bytes(made, tmp_path)


@needs_beam
def test_blocks_of_other_settings_are_not_taken(made, tmp_path, tiny_blocks, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(prepare.assembly, "assemble", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _prepare(tmp_path, [*SMALL, "lab.seed = 3"], runner="direct")
    (left,) = tmp_path.glob(".pretrain.blocks.*")
    assert list(left.glob("train/*.npz"))
    lines = _prepare(tmp_path, runner="direct")
    assert not left.exists() and all(" 0 of them done before" in line for line in lines if "before" in line)
    assert _same_bytes(made, tmp_path)


@needs_beam
def test_a_call_without_beam_completes_what_one_with_it_left(made, tmp_path, tiny_blocks, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(prepare.assembly, "assemble", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _prepare(tmp_path, runner="direct")
    _prepare(tmp_path)
    assert _same_bytes(made, tmp_path)
    assert not list(tmp_path.glob(".*"))


@needs_beam
def test_bad_runners_and_a_bad_worker(tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="Unexpected pipeline runner: CloudRunner"):
        _prepare(tmp_path, runner="CloudRunner")
    with pytest.raises(
        InputError, match="direct_num_workers=two: argument --direct_num_workers: invalid int"
    ):
        _prepare(tmp_path, runner="direct", runner_options=["--direct_num_workers=two"])
    assert not list(tmp_path.iterdir())

    def full(path, tokens):
        raise InputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(beam, "save_tokens", full)
    with pytest.raises(InputError, match=r"^cannot write .*npz: No space left on device(\n|$)"):
        _prepare(tmp_path, runner="direct")
    monkeypatch.setattr(beam, "save_tokens", lambda path, tokens: None)
    with pytest.raises(InputError, match="direct ended without 2 of 2 blocks"):
        _prepare(tmp_path, runner="direct")
    assert not list(tmp_path.glob("*/manifest.json"))


def test_without_beam_the_runner_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"--runner needs Apache Beam .*pip install 'scaling-jax\[beam\]'"):
        _prepare(tmp_path, runner="DirectRunner")


@pytest.mark.parametrize(
    "given",
    [
        ["--runner_options", "direct_num_workers=2", "direct_running_mode=multi_processing"],
        ["--runner_options=--direct_num_workers=2 --direct_running_mode=multi_processing"],
    ],
)
def test_options_with_and_without_dashes(tmp_path, monkeypatch, given):
    passed = {}
    monkeypatch.setattr(prepare, "prepare", lambda out, **named: passed.update(named))
    flags = ["prepare", "--gin_file", str(ROOT / GIN), "--out", str(tmp_path), "--runner", "DirectRunner"]
    assert main.main([*flags, *given]) == 0
    assert passed["runner"] == "DirectRunner"
    assert passed["runner_options"] == ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


def _command(out, *more, gin_file=GIN, bindings=SMALL):
    flags = [part for binding in bindings for part in ("--gin", binding)]
    verb = [
        sys.executable,
        "-m",
        "scaling_jax.cli.main",
        "prepare",
        "--gin_file",
        gin_file,
        "--out",
        str(out),
    ]
    return [*verb, *flags, *more]


def _start(command, log):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(log, "wb") as file:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


RUNNERS = {
    "in process": (),
    "beam": ("--runner", "DirectRunner"),
    "beam, 2 processes": (
        *("--runner", "DirectRunner", "--runner_options"),
        *("direct_num_workers=2", "direct_running_mode=multi_processing"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "runner", [pytest.param(name, marks=needs_beam if options else ()) for name, options in RUNNERS.items()]
)
def test_killed_at_random_moments(made, tmp_path, runner):
    """Whatever moment it is, there is no store or a whole one, and calls complete it to the same bytes."""
    draw = random.Random(runner)
    log = tmp_path / "log"
    begin = time.monotonic()
    assert _start(_command(tmp_path / "whole", *RUNNERS[runner]), log).wait(300) == 0, log.read_text()
    seconds = time.monotonic() - begin
    assert _same_bytes(made, tmp_path / "whole")
    out = tmp_path / "killed"
    for number in range(6):
        # The beginning is imports; a third of the moments fall on the last second, where stores appear.
        moment = seconds - draw.random() if number % 3 == 0 else seconds * (0.3 + 0.7 * draw.random())
        process = _start(_command(out, *RUNNERS[runner]), log)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for store in ("pretrain", "finetune"):
            if (out / store).exists():
                open_store(out / store).verify()
                assert _same_bytes(made / store, out / store)
        if number % 2:  # else the next round goes on with what this one left
            assert _start(_command(out, *RUNNERS[runner]), log).wait(300) == 0, log.read_text()
            assert _same_bytes(made, out) and not list(out.glob(".*"))
            shutil.rmtree(out)


@pytest.mark.slow
@needs_beam
def test_real_text_and_any_number_of_workers(tmp_path, monkeypatch):
    folder = os.environ.get("SCALING_JAX_DATA")
    if not folder:
        pytest.skip("SCALING_JAX_DATA is not set: name a folder that holds multi30k/ and mono_en/")
    pair = {
        split: tuple(f"{folder}/multi30k/{name}.{side}.gz" for side in ("en", "de"))
        for split, name in {"TRAIN": "train", "DEV": "val", "TEST": "test_2016_flickr"}.items()
    }
    text = [str(path) for path in sorted(Path(folder, "mono_en").glob("*.txt"))]
    assert text
    bindings = [f"{name} = {value}" for name, value in pair.items()] + [f"PRETRAIN = {text}"]
    gin_file = "gin_configs/tasks/parallel_text.gin"
    _prepare(tmp_path / "alone", bindings, gin_file)
    monkeypatch.setattr(text_files, "_BLOCK", 512)  # smaller than the blocks that made the first one
    monkeypatch.setattr(beam, "BLOCK_CHARACTERS", 1 << 17)
    for workers, mode in ((1, "in_memory"), (2, "multi_processing"), (4, "multi_processing")):
        out = tmp_path / f"{workers}"
        options = [f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
        lines = _prepare(out, bindings, gin_file, runner="DirectRunner", runner_options=options)
        assert _same_bytes(tmp_path / "alone", out)
        assert all(int(line.split()[1]) > 10 for line in lines if "done before" in line)
    texts = open_store(tmp_path / "4/finetune").split("test").texts()
    assert len(texts) == 1000 and texts[0]["targets"].startswith("Ein Mann mit einem orangefarbenen Hut")
