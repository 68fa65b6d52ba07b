"""Parts of a study: whole together, each with all that it needs."""

import pytest

from scaling_jax.errors import InputError
from scaling_jax.studies.jobs import Job
from scaling_jax.studies.shards import ALL, Shard, shard_of


def jobs():
    """Three models pretrained, rates searched on the first, five runs on each, one run that goes on."""
    pretraining = [Job(f"pretrain-{model}", "pretraining", "", (), "", 10.0, {}) for model in "abc"]
    rates = [Job("rate-lora", "learning_rate", "", ("pretrain-a",), "", 1.0, {})]
    runs = [
        Job(f"run-{model}{size}", "finetuning", "", (f"pretrain-{model}", "rate-lora"), "", 1.0 + size, {})
        for model in "abc"
        for size in range(5)
    ]
    later = [Job("run-later", "finetuning", "", ("pretrain-c", "run-c4"), "", 2.0, {})]
    return [*pretraining, *rates, *runs, *later]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_every_run_is_in_one_part_with_what_it_needs(count):
    every = jobs()
    parts = [Shard(index, count).jobs(every) for index in range(1, count + 1)]
    assert {job.job_id for part in parts for job in part} >= {
        job.job_id for job in every if job.kind == "finetuning"
    }
    for part in parts:
        names = [job.job_id for job in part]
        assert all(need in names for job in part for need in job.needs)
        assert names == [job.job_id for job in every if job.job_id in names], "the order of the study"
    own = [job.job_id for part in parts for job in part if job.kind == "finetuning"]
    twice = {name for name in own if own.count(name) > 1}
    assert twice <= {"run-c4"}, "what another run goes on from may be needed in two parts"


def test_parts_are_of_about_the_same_work_and_pretrain_little_twice():
    every = jobs()[:-1]
    parts = [Shard(index, 3).jobs(every) for index in (1, 2, 3)]
    work = [sum(job.work for job in part if job.kind == "finetuning") for part in parts]
    assert max(work) < 1.4 * min(work)
    # Everyone needs the rates, which are searched on the first model.
    models = [{job.job_id for job in part if job.kind == "pretraining"} for part in parts]
    assert models == [{"pretrain-a"}, {"pretrain-a", "pretrain-b"}, {"pretrain-a", "pretrain-c"}]
    assert [Shard(index, 3).jobs(every) for index in (1, 2, 3)] == parts
    assert ALL.jobs(every) == every


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_parts_that_there_are_not(text):
    with pytest.raises(InputError, match="I/N is needed"):
        shard_of(text)


def test_names_of_parts():
    assert shard_of("2/8") == Shard(2, 8)
    assert (Shard(2, 8).plan_name, ALL.plan_name) == ("plan-2-of-8.json", "plan.json")
