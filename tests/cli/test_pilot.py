"""`scaling-jax pilot` up to its plan, with measured costs given: what it refuses, and what it plans."""

import dataclasses
import json

import pytest

from scaling_jax import files
from scaling_jax.cli.main import main
from scaling_jax.cli.piloting import request
from scaling_jax.studies import pilot_inputs, step_costs
from scaling_jax.studies.step_costs import StepCosts
from tests.interop import cases

COSTS = StepCosts(
    step_seconds=0.1,
    dev_seconds=0.05,
    test_seconds=0.1,
    compile_seconds=4.0,
    start_loss=3.5,
    flops_per_step=1e6,
    memory_bytes=2**29,
)


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Examples, and what two checkpoints say of themselves; nothing that takes a process is made."""

    def save(name, **changed):
        model = dataclasses.replace(cases.CASES["own_decoder"], name=name, **changed)
        about = {"kind": "pretrained", "hash": name, "vocabulary_sha256": "bytes-48", "pretrain_tokens": 64}
        files.write_json(tmp_path / name / "about.json", about | {"model": dataclasses.asdict(model)})

    save("large")
    save("small", layers=1)
    write(tmp_path / "pairs.jsonl", 6000)
    monkeypatch.setattr(request, "make_inputs", lambda *given: tmp_path / "store")
    monkeypatch.setattr(request, "_workers", lambda: 2)
    monkeypatch.setattr(step_costs, "measured", lambda config, runs, *rest: [COSTS] * len(runs))
    return tmp_path


def write(path, count):
    path.write_text(
        "".join(json.dumps({"source": f"a {n}", "target": f"b {n}"}) + "\n" for n in range(count))
    )


def pilot(room, *flags, model="large", data="pairs.jsonl"):
    given = ["--model", str(room / model), "--data", str(room / data), "--out", str(room / "out")]
    return main(["pilot", *given, "--dry_run", *flags])


def test_plan_of_a_budget(room, capsys):
    assert pilot(room, "--hours", "0.5") == 0
    plan = capsys.readouterr().out
    assert "target: 5,000 examples" in plan and "budget: 0.5 device hours, 15 min on 2 workers" in plan
    lines = plan.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("examples"))
    grid = [line.split() for line in lines[start + 1 : lines.index("", start)]]
    assert grid[0][0] and all(int(size.replace(",", "")) <= 2500 for size, *_ in grid)
    assert "expected width of the 90% interval" in plan and "full - lora" in plan
    runs = next(line for line in lines if " runs, " in line)
    assert int(runs.split()[0]) == sum(int(cell) for row in grid for cell in row[1:])


def test_a_larger_budget_narrows_and_is_the_same_pilot(room, capsys):
    def width(*flags):
        assert pilot(room, *flags) == 0
        told = next(
            line for line in capsys.readouterr().out.splitlines() if line.startswith("expected width")
        )
        return float(told.split("nats: ")[1].split(",")[0].split()[1])

    assert width("--hours", "2") < width("--hours", "0.3")
    assert width("--share", "0.9") > 0


def test_what_could_be_had_is_a_target(room, capsys):
    assert pilot(room, "--hours", "0.5", "--target", "50000") == 0
    assert "target: 50,000 examples (5,000 are here)" in capsys.readouterr().out


def test_a_family_varies_the_model_too(room, capsys):
    assert pilot(room, "--hours", "0.5", "--models", str(room / "small"), "--methods", "full,lora") == 0
    plan = capsys.readouterr().out
    assert "large full (seeds)" in plan and "small lora (seeds)" in plan


def test_models_that_are_alike_are_no_family(room, capsys, tmp_path):
    (room / "again").mkdir()
    (room / "again/about.json").write_text((room / "large/about.json").read_text())
    assert "the same name" in refused(room, capsys, "--hours", "1", "--models", str(room / "again"))


def test_limits_leave_methods_out(room, capsys, monkeypatch):
    own = {"full": 4 * 2**30, "lora": 2**30, "prompt": 2**30}
    found = [dataclasses.replace(COSTS, memory_bytes=own[method]) for method in ("full", "lora", "prompt")]
    monkeypatch.setattr(step_costs, "measured", lambda *given: found)
    assert pilot(room, "--hours", "0.5", "--memory_gib", "2") == 0
    plan = capsys.readouterr().out
    assert "full is left out: the final run needs 4 GiB of memory, the limit is 2" in plan
    assert "lora - prompt" in plan and "full - lora" not in plan


def test_a_pilot_dearer_than_the_final_runs_says_so(room, capsys):
    assert pilot(room, "--hours", "5") == 0
    assert "making them all answers more surely" in capsys.readouterr().out


def refused(room, capsys, *flags, **given):
    assert pilot(room, *flags, **given) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("scaling-jax pilot: error: ") and len(error.splitlines()) == 1
    return error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "a budget is --hours H or --share S, one of the two; neither is given"),
        (("--hours", "1", "--share", "0.1"), "one of the two; both are given"),
        (("--hours", "0"), "--hours 0: above zero"),
        (("--share", "1.5"), "make the final run by every method"),
        (("--hours", "1", "--target", "many"), "--target many: a number of examples, or all"),
        (("--hours", "1", "--target", "100"), "lies inside a pilot.*tune on all 100 by every method"),
        (("--hours", "1", "--methods", "full,lorra"), "no tuning method 'lorra'; did you mean 'lora'"),
        (("--hours", "1", "--methods", "full,full"), "different names"),
        (("--hours", "1", "--memory_gib", "0.1"), "no method keeps the limits.*full.*0.5 GiB.*lora"),
        (("--hours", "1", "--memory_gib", "-1"), "--memory_gib -1: a limit is"),
        (("--hours", "1", "--final_hours", "0.0001"), "no method keeps the limits of the final run"),
        (("--hours", "0.001"), r"too small to fit a law to; the least that would do is --hours 0\.0"),
        (("--hours", "1", "--fields", "source,answer"), r"pairs.jsonl:1: no field 'answer'"),
        (("--hours", "1", "--columns", "0"), "two whole numbers"),
        (("--hours", "1", "--dev", "none.jsonl"), "no file none.jsonl"),
        (("--hours", "1", "--models", "nothing_at_all"), "no such folder, and no size of ours"),
    ],
)
def test_what_cannot_be_is_one_line(room, capsys, flags, message):
    import re

    assert re.search(message, refused(room, capsys, *flags))


def test_the_least_budget_that_is_named_does(room, capsys):
    error = refused(room, capsys, "--hours", "0.001")
    least = error.split("--hours ")[1].split()[0]
    assert pilot(room, "--hours", least) == 0
    assert "lora alone" in error or "full alone" in error or "prompt alone" in error


def test_too_few_examples(room, capsys):
    write(room / "few.jsonl", 200)
    error = refused(room, capsys, "--hours", "1", data="few.jsonl")
    assert "a target of 160 examples lies inside a pilot" in error and "--smallest 10" in error
    error = refused(room, capsys, "--hours", "1", "--target", "5000", data="few.jsonl")
    assert "160 examples to tune on, a pilot needs at least 256" in error and "--smallest 20" in error
    write(room / "none.jsonl", 40)
    assert "has 40 examples, too few to take 16 each for dev and test" in refused(
        room, capsys, "--hours", "1", data="none.jsonl"
    )


def test_bad_lines_are_named(room, capsys):
    path = room / "bad.jsonl"
    path.write_text('{"source": "a", "target": "b"}\n{"source": "a", "target": 3}\n')
    assert "bad.jsonl:2: field 'target' must be a string" in refused(
        room, capsys, "--hours", "1", data="bad.jsonl"
    )
    path.write_text('{"source": "a", "target": "b"}\n{"source": "a", \n')
    assert "bad.jsonl:2:17: not JSON" in refused(room, capsys, "--hours", "1", data="bad.jsonl")
    (room / "bad.tsv").write_text("a\tb\nonly one\n")
    assert "bad.tsv:2: 1 tab-separated" in refused(room, capsys, "--hours", "1", data="bad.tsv")
    (room / "bad.parquet").write_text("x")
    assert ".jsonl" in refused(room, capsys, "--hours", "1", data="bad.parquet")


def test_a_folder_belongs_to_one_pilot(room, capsys):
    assert pilot(room, "--hours", "0.5") == 0
    assert "a pilot of another target" in refused(room, capsys, "--hours", "0.5", "--target", "4000")
    write(room / "pairs.jsonl", 5900)
    assert "a pilot of another data" in refused(room, capsys, "--hours", "0.5")
    assert "holds no pilot" in refused(room, capsys, "--hours", "0.5", "--out", str(room / "large"))


def test_what_was_refused_leaves_nothing(room, capsys):
    refused(room, capsys, "--hours", "1", "--methods", "lorra")
    refused(room, capsys, "--hours", "1", "--memory_gib", "0.1")
    assert not (room / "out").exists()
    refused(room, capsys, "--hours", "0.001")
    assert (room / "out/costs.json").exists(), "a larger budget need not measure again"
    assert pilot(room, "--hours", "0.5") == 0


def test_what_a_model_may_be(room, tmp_path):
    found = pilot_inputs.find_model(str(room / "large"), tmp_path / "out")
    assert (found.kind, found.base) == ("ours", room / "large")
    (tmp_path / "theirs").mkdir()
    files.write_json(tmp_path / "theirs/config.json", {})
    found = pilot_inputs.find_model(str(tmp_path / "theirs"), tmp_path / "out")
    assert (found.kind, found.base) == ("foreign", tmp_path / "out/base/theirs")
    assert pilot_inputs.find_model("ladder_60k", tmp_path).kind == "size"
    assert pilot_inputs.own_sizes()["t5_small"] == "gin_configs/models/t5_small.gin"


def test_seconds_of_a_run():
    from scaling_jax.training.finetune import FinetuneSettings

    settings = FinetuneSettings(
        batch_size=10, max_epochs=5, max_steps=1000, eval_interval=10, steps_per_call=1
    )
    seconds = step_costs.run_seconds(settings, COSTS, 100)
    assert seconds == pytest.approx(50 * 0.1 + 6 * 0.05 + 0.1 + step_costs.RUN_SECONDS)
    half = step_costs.run_seconds(settings, COSTS, 100, 0.5)
    assert half == pytest.approx(25 * 0.1 + 4 * 0.05 + 0.1 + step_costs.RUN_SECONDS)
    record = {"costs": {"train_seconds": 3.0}, "metrics": [{}] * 4}
    assert step_costs.recorded_seconds(record, COSTS) == pytest.approx(
        3.0 + 4 * 0.05 + 0.1 + step_costs.RUN_SECONDS
    )
    assert step_costs.recorded_seconds({"status": "failed"}, COSTS) == 0.0
