"""A study over several machines: each makes a part, which follows from the study alone.

A part is a share of the finetuning runs, and all that they need. Where the machines share the folder,
what several parts need is made once (`claims.py`); where they do not, each makes it for itself, with the
same numbers. In the end all runs lie in one folder, and `study` without a shard writes the table.
"""

import dataclasses
import re
from collections.abc import Sequence

from scaling_jax.errors import InputError
from scaling_jax.studies.jobs import Job

_LAST = ("finetuning", "base_evaluation")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, from 1."""

    index: int
    count: int

    @property
    def plan_name(self) -> str:
        """Name of the file that tells workers their jobs."""
        return "plan.json" if self.count == 1 else f"plan-{self.index}-of-{self.count}.json"

    def jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of this part, in order.

        Runs of one base stay together, as far as parts can be of about the same work.
        """
        if self.count == 1:
            return list(jobs)
        by_id = {job.job_id: job for job in jobs}
        last = sorted((job for job in jobs if job.kind in _LAST), key=lambda job: (job.needs, job.job_id))
        total = sum(job.work for job in last) or 1.0
        begun, wanted = 0.0, set()
        for job in last:
            part = min(int((begun + job.work / 2) / total * self.count), self.count - 1)
            begun += job.work
            if part == self.index - 1:
                wanted.add(job.job_id)
        open_ids = list(wanted)
        while open_ids:
            needs = set(by_id[open_ids.pop()].needs) - wanted
            wanted |= needs
            open_ids += needs
        return [job for job in jobs if job.job_id in wanted]


ALL = Shard(1, 1)


def shard_of(text: str) -> Shard:
    """The part that "i/n" names.

    Raises:
        InputError: it names none.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard {text!r}: I/N is needed with I from 1 to N, such as 2/8")
    return Shard(int(match[1]), int(match[2]))
