"""The same graph as jobs of a real SLURM of one node, started here and ended with the tests."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest

import stubs

from agegender import profiles, provenance, runs

TOP = Path(__file__).resolve().parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "setpriv")
CONF = """
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
GresTypes=gpu
KillWait=2
MinJobAge=3600
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:1
PartitionName=tiny Nodes={host} Default=YES MaxTime=INFINITE DefMemPerCPU=100
"""  # config_overrides: the node may claim more cores than this machine has, so that two jobs run at once


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def _ours(folder: Path) -> list[psutil.Process]:
    """The daemons, steps and jobs of the SLURM in `folder`: they all carry its place in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF") == f"{folder}/slurm.conf" and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            pass  # gone meanwhile
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment that leads to a SLURM of one node with one pretended GPU; nothing of it is left behind."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="not installed: the extra slurm")
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)")
    if os.geteuid():
        pytest.skip("SLURM's daemons need root here")
    folder = tmp_path_factory.mktemp("slurm")
    for below in ("state", "spool"):
        (folder / below).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, host=host, port=_free_port(), node_port=_free_port()))
    (folder / "gres.conf").write_text(f"AutoDetect=off\nNodeName={host} Name=gpu Count=1 File=/dev/null\n")
    # the executor takes SLURM_CONF from srun, so a script of that name gives it back
    (folder / "bin").mkdir()
    (folder / "bin" / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun")} "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket",
         f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf)],
    ]  # fmt: skip
    try:
        for command in daemons:
            with open(folder / f"{command[0]}.out", "w") as said:  # a killed test run takes its daemons with it
                wrapped = ["setpriv", "--pdeathsig", "TERM", *command]
                subprocess.Popen(wrapped, env=environment, stdout=said, stderr=subprocess.STDOUT)
            for _ in range(100 if command[0] == "munged" else 0):  # the others need its socket
                if (folder / "munge.socket").exists():
                    break
                time.sleep(0.1)
        for _ in range(300):
            state = _ask(environment, "sinfo", "--noheader", "--format=%T")
            if state == "idle":
                break
            time.sleep(0.1)
        else:
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
            pytest.fail(f"SLURM did not start; sinfo says {state!r}\n{logs}")
        yield environment
    finally:
        _ask(environment, "scancel", "--user=root")
        for patience, end in ((5, psutil.Process.terminate), (5, psutil.Process.kill)):
            for process in _ours(folder):
                end(process)
            psutil.wait_procs(_ours(folder), timeout=patience)
        assert not _ours(folder)


def _ask(environment: dict, *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy with stub notebooks, but for the real model A, and with the profile for Snakemake."""
    folder = stubs.repository(tmp_path_factory.mktemp("report"))
    shutil.copy(TOP / "notebooks" / "03_model_a.ipynb", folder / "notebooks")
    shutil.copytree(TOP / "notebooks/profiles/slurm", folder / "notebooks/profiles/slurm")
    after = stubs.comparison()
    for cell in after.cells:  # the real model A keeps no `mae`
        cell.source = cell.source.replace('["facts"]["mae"]', '["facts"]["epochs"]')
    nbformat.write(after, folder / "notebooks" / "08_comparison.ipynb")
    stubs.write_profile(folder, {
        "03_model_a": {"limit": 100, "epochs": 1, "width": 4, "resources": {"gpu": 1, "threads": 2, "mem_mb": 3000}},
        "08_comparison": {"runs": ["03_model_a"]},
    })  # fmt: skip
    stubs.write_profile(folder, {"04_model_b": {"epochs": 0}, "05_branched": {}}, name="failing")
    return folder


def on_slurm(cluster: dict, folder: Path, profile: str) -> tuple[int, str, dict[str, str]]:
    """What make does with CLUSTER=slurm: exit code, all it says, and what SLURM knows of each job, by rule."""
    command = [
        sys.executable, "-m", "snakemake", "--profile", "notebooks/profiles/slurm", "--nolock", "--rerun-incomplete",
        "--keep-going", "--quiet", "host", "reason", "--config", f"profile={profile}",
        "--slurm-status-command", "squeue",  # sacct needs a database
        "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10",
    ]  # fmt: skip
    cache = os.environ.get("AGEGENDER_CACHE") or str(TOP / ".cache")  # where the drawn sample lies
    done = subprocess.run(
        command, cwd=folder, text=True, timeout=900, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=stubs.environment(folder) | {"AGEGENDER_CACHE": cache, "SLURM_CONF": cluster["SLURM_CONF"], "PATH": cluster["PATH"]},
    )  # fmt: skip
    jobs = {}
    for number in re.findall(r"SLURM jobid (\d+)", done.stdout):
        job = _ask(cluster, "scontrol", "show", "job", number)
        jobs[re.search(r"Comment=rule_(\w+)", job)[1]] = job
    return done.returncode, done.stdout, jobs


def test_every_notebook_is_a_job_and_the_book_is_built_here(cluster, copy, monkeypatch):
    code, said, jobs = on_slurm(cluster, copy, "tiny")
    assert code == 0, said[-6000:]
    assert jobs.keys() == {"03_model_a", "08_comparison"}
    assert all("JobState=COMPLETED" in job for job in jobs.values())
    # what the run asks for, and for the other the defaults
    trained, compared = jobs["03_model_a"], jobs["08_comparison"]
    assert "gpu:1" in trained and "cpu=2," in trained and "mem=3000M" in trained
    assert "gpu:1" not in compared and "cpu=4," in compared and "mem=8000M" in compared
    assert "TimeLimit=04:00:00" in compared
    page = copy / "_build" / "tiny" / "html" / "index.html"
    assert "seconds" in said and page.is_file() and f"The report: {page}" in said

    monkeypatch.setenv("AGEGENDER_HOME", str(copy))
    monkeypatch.setenv("PYTHONPATH", str(copy))
    run = profiles.read("tiny").runs["03_model_a"]
    here = copy / "runs" / "here"
    here.mkdir(parents=True)
    runs.execute(run.source, here, run.parameters | {"out": "runs/here"})
    there, local = (provenance.read(folder) for folder in (run.folder, "runs/here"))
    assert there["parameters"] == local["parameters"] | {"out": there["parameters"]["out"]}
    for key in ("sources", "notebook_sha256", "versions"):
        assert there[key] == local[key]
    tables = [pd.read_parquet(copy / folder / "predictions.parquet") for folder in (run.folder, "runs/here")]
    pd.testing.assert_frame_equal(*tables)


def test_a_run_that_fails_is_reported_with_its_log_and_fails_the_whole(cluster, copy):
    code, said, jobs = on_slurm(cluster, copy, "failing")
    assert code == 1
    assert "JobState=FAILED" in jobs["04_model_b"] and "JobState=COMPLETED" in jobs["05_branched"]
    assert "AssertionError: nothing to train" in said
    assert "Not finished: runs/failing/04_model_b." in said
    assert not (copy / "_build" / "failing").exists()
