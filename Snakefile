# The report as a graph: every run of a profile, then the gate and the book.
#
#   snakemake -c all --config profile=sample                  what `make report` calls
#   snakemake -c 2 --config profile=coursework data=FOLDER    other faces; any parameter goes like `data`
#
# `show_faces=false` builds the book without pictures of faces. `threads=N` keeps N cores for each run (1).
# On SLURM: --profile notebooks/profiles/slurm; what runs ask for stands there, or as `resources` with a run.

import base64
import json
import os
from pathlib import Path

import filelock
from snakemake.exceptions import WorkflowError

os.environ["AGEGENDER_HOME"] = workflow.basedir
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [workflow.basedir, os.environ.get("PYTHONPATH")]))
sys.path.insert(0, workflow.basedir)
workdir: workflow.basedir

from agegender import faces, places, profiles, report

SWITCHES = {"profile": "sample", "show_faces": True, "threads": 1}
setting = {**SWITCHES, **config}
overrides = {key: value for key, value in config.items() if key not in SWITCHES}

if workflow.is_main_process and not workflow.dryrun:
    # Snakemake's own lock outlives a kill -9; this one the system gives up with its holder.
    os.makedirs("runs", exist_ok=True)
    only_one = filelock.FileLock("runs/.lock")
    try:
        only_one.acquire(timeout=0)
    except filelock.Timeout:
        raise WorkflowError("another report is being made in this folder: wait for it, or end it first")
    places.sweep(Path("runs"), places.cache())

try:
    profile = profiles.read(setting["profile"], overrides)
    show_faces = profiles.switch("show_faces", setting["show_faces"])
    # How the data lies on the disk now: a run goes stale when that changes.
    read = {run.parameters["data"] for run in profile.runs.values() if "data" in run.parameters}
    prints = {data: faces.fingerprint(data) for data in read}
except (ValueError, OSError) as error:
    raise WorkflowError(str(error))

PYTHON = f'{"exec " if os.name == "posix" else ""}"{sys.executable}"'  # exec: no shell between a run and us
# Parameters that name files, and where these may lie.
NAMED = {"weights": ["{}"], "split_list": ["{}"], "recipe": ["notebooks/recipes/{}.json", "{}", "{}/recipe.json"]}
THREADS = {run.name: run.resources.get("threads", int(setting["threads"])) for run in profile.runs.values()}
FOLDERS = {run.folder.as_posix() for run in profile.runs.values()}
PAGE = f"_build/{profile.name}/html/index.html"


def encoded(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


rule all:
    input: PAGE
    default_target: True
    localrule: True


for run in profile.runs.values():
    rule:
        name: run.name
        input:
            run.notebook.as_posix(),
            [os.path.relpath(module) for module in profiles.sources(run.source)],
            [(profile.runs[need].folder / "provenance.json").as_posix() for need in run.needs],
        output:
            notebook=(run.folder / "notebook.ipynb").as_posix(),
            provenance=(run.folder / "provenance.json").as_posix(),
        params:
            notebook=run.notebook.as_posix(),
            folder=run.folder.as_posix(),
            parameters=encoded(run.parameters),
            faces=prints.get(run.parameters.get("data"), ""),
            # files that parameters name: one changed is as good as another parameter
            files=[(str(path), path.stat().st_size, path.stat().st_mtime_ns)
                   for key, value in run.parameters.items()
                   if key in NAMED and value and value not in FOLDERS  # a run's folder is an input already
                   for path in (Path(place.format(value)) for place in NAMED[key]) if path.is_file()]
            + [(str(path), path.stat().st_size, path.stat().st_mtime_ns)
               for folder in run.parameters.get("runs", []) if folder not in FOLDERS  # stored ones
               for path in sorted(Path(folder).glob("*"))],
        benchmark: (run.folder / "benchmark.tsv").as_posix()
        threads: THREADS[run.name]
        # before threads, SLURM's executor goes by cpus_per_task, of which our profile for it has a default
        resources:
            **({"cpus_per_task": THREADS[run.name]} if "threads" in {*config, *run.resources} else {}),
            **{key: value for key, value in run.resources.items() if key != "threads"},
        shell: PYTHON + " -m agegender.runs {params.notebook} {params.folder} {params.parameters}"


rule book:
    input:
        [(run.folder / "notebook.ipynb").as_posix() for run in profile.runs.values()],
        [(run.folder / "provenance.json").as_posix() for run in profile.runs.values()],
        [run.notebook.as_posix() for run in profile.runs.values()],
        "_config.yml", os.path.relpath(profile.path), "agegender/report.py", "agegender/reference.py",
        "agegender/cards.py", "agegender/glossary.py",
        sorted(path.as_posix() for path in Path("book").rglob("*") if path.is_file()),
    output: PAGE
    params:
        profile=os.path.relpath(profile.path),
        asked=encoded({"overrides": overrides, "show_faces": show_faces}),
        titles=[profile.title, profile.description],
    localrule: True  # short, and it needs git, which a node of a cluster may lack
    shell: PYTHON + " -m agegender.report {params.profile:q} {params.asked}"


onsuccess:
    if os.path.exists(PAGE):  # not so when only some runs were asked for
        table = f"{report.times(profile)}\n\nThe report: {Path(PAGE).resolve()}"
        Path(PAGE).parents[1].joinpath("times.txt").write_text(table + "\n")
        if "MAKELEVEL" not in os.environ:  # make prints it itself, also when there was nothing to do
            print(table)


onerror:
    unfinished = [run.folder.as_posix() for run in profile.runs.values()
                  if not (run.folder / "provenance.json").exists()]
    if unfinished:
        print(f"\nNot finished: {', '.join(unfinished)}. The same command goes on from there.")
