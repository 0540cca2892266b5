"""Polls of the executor for Slurm: one that fails loses no job."""

import asyncio
from types import SimpleNamespace

from ablations.study import slurm


class Executor:
    """As the executor for Slurm: a poll yields what runs on and reports what ended; a failed one neither."""

    wait = True

    def __init__(self, *polls):
        self._polls = list(polls)
        self.ended = []

    async def check_active_jobs(self, active_jobs):
        states = self._polls.pop(0)
        for job in active_jobs if states else ():
            state = states[job.external_jobid]
            if state == "running":
                yield job
            elif state == "done":
                self.report_job_success(job)
            else:
                self.report_job_error(job, msg=state)

    def report_job_success(self, job):
        self.ended.append(job.external_jobid)

    def report_job_error(self, job, msg=None):
        self.ended.append(f"{job.external_jobid}: {msg}")


def test_jobs_of_which_a_poll_says_nothing_are_polled_again(monkeypatch, capsys):
    monkeypatch.setitem(slurm.PROBES, "squeue", ("true",))
    executor_type = type("Patched", (Executor,), {})
    slurm.wait_for_answers(executor_type, "squeue")
    executor = executor_type(
        {"1": "running", "2": "done", "3": "running"}, None, {"1": "out of memory", "3": "running"}
    )
    jobs = [SimpleNamespace(external_jobid=name) for name in "123"]

    async def polled(active):
        return [job async for job in executor.check_active_jobs(active)]

    for left in (["1", "3"], ["1", "3"], ["3"]):
        jobs = asyncio.run(polled(jobs))
        assert [job.external_jobid for job in jobs] == left
    assert executor.ended == ["2", "1: out of memory"]
    assert not capsys.readouterr().err


def test_a_slurm_that_does_not_answer_is_asked_again_before_the_poll(monkeypatch, capsys, tmp_path):
    there = tmp_path / "there"
    monkeypatch.setitem(slurm.PROBES, "squeue", ("cat", str(there)))
    monkeypatch.setattr(slurm, "RETRY_SECONDS", 0.05)
    executor_type = type("Patched", (Executor,), {})
    slurm.wait_for_answers(executor_type, "squeue")
    executor = executor_type({"1": "done"})

    async def polled():
        asyncio.get_running_loop().call_later(0.2, there.touch)
        return [job async for job in executor.check_active_jobs([SimpleNamespace(external_jobid="1")])]

    assert asyncio.run(polled()) == []
    assert executor.ended == ["1"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Slurm does not answer (squeue: ") and line.endswith("); asking again")
