"""Files are whole or absent, and what cannot be read or written is said in one line."""

import json
import os

import pytest

from scaling_jax import files
from scaling_jax.errors import InputError, did_you_mean


def test_json_round_trip_and_mode(tmp_path):
    path = files.write_json(tmp_path / "deep/er/a.json", {"größe": [1, 2.5, None]})
    assert files.read_json(path) == {"größe": [1, 2.5, None]}
    assert path.stat().st_mode & 0o077 == 0o066 & ~_umask() & 0o077
    assert files.sha256(path) == files.sha256(files.write_bytes(tmp_path / "b", path.read_bytes()))


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_nan_is_not_json_and_the_old_file_stays(tmp_path):
    path = files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError):
        files.write_json(path, float("nan"))
    assert files.read_json(path) == 1


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = files.write_text(tmp_path / "a.txt", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot write .*a.txt: No space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_reading_what_is_no_json(tmp_path):
    with pytest.raises(InputError, match="cannot read .*none.json: No such file"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "a.json").write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(InputError, match="a.json:2:6: not JSON"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(b'"\xff"')
    with pytest.raises(InputError, match="b.json: not UTF-8 text .byte 1."):
        files.read_json(tmp_path / "b.json")


def test_new_directory_appears_whole_or_not_at_all(tmp_path):
    with files.new_directory(tmp_path / "made") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made/a").read_text() == "1"
    with pytest.raises(KeyboardInterrupt), files.new_directory(tmp_path / "lost") as folder:
        (folder / "a").write_text("1")
        raise KeyboardInterrupt
    with pytest.raises(InputError, match="not an empty folder"), files.new_directory(tmp_path / "made"):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot make .*file/under"),
        files.new_directory(tmp_path / "file/under"),
    ):
        pass
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "made"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    with files.new_directory(tmp_path / "empty") as folder:
        files.write_json(folder / "a.json", 1)
    assert json.loads((tmp_path / "empty/a.json").read_text()) == 1


def test_nearest_name():
    assert did_you_mean("lorra", ["lora", "full"]) == "; did you mean 'lora'?"
    assert did_you_mean("zzz", ["lora", "full"]) == "; known: full, lora"
    assert did_you_mean("zzz", []) == ""
