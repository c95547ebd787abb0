"""Profiles: lists of runs, each a notebook with its parameters, checked before anything runs."""

from __future__ import annotations

import ast
import fnmatch
import functools
import itertools
import json
import logging
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Iterable, Mapping

import yaml

from agegender.places import home

PACKAGE = Path(__file__).resolve().parent
# These run and print the notebooks and touch no number: a change in them makes no run stale.
RUNNERS = {"profiles", "runs", "report"}
# What a run can ask of a cluster, by Snakemake's names: cores, megabytes, minutes, cards; then what is SLURM's own.
RESOURCES = {
    "threads": int, "mem_mb": int, "runtime": int, "gpu": int,
    "gpu_model": str, "slurm_partition": str, "slurm_account": str, "constraint": str,
}  # fmt: skip
PLAIN = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "None": type(None)}


@dataclass(frozen=True)
class Run:
    """One notebook with every one of its parameters; paths are relative to `home`."""

    name: str
    notebook: Path
    parameters: dict[str, Any]
    needs: tuple[str, ...]
    folder: Path
    resources: dict[str, Any] = field(default_factory=dict)  # see `RESOURCES`

    @property
    def source(self) -> Path:
        """The notebook as it stands in the repository."""
        return home() / self.notebook


@dataclass(frozen=True)
class Profile:
    """A checked list of runs, in the order of the file."""

    name: str
    title: str
    description: str
    path: Path
    runs: dict[str, Run]


@dataclass(frozen=True)
class Parameter:
    """A line of a notebook's parameters cell: ``name: type = default  # help``."""

    name: str
    type: str
    default: Any
    help: str

    @property
    def choices(self) -> tuple[str, ...]:
        """What the help allows, where it says "one of a, b or c" (to a bracket, a semicolon or its end)."""
        named = re.search(r"\bone of ([^;()]+)", self.help)
        return tuple(re.split(r",\s*(?:or\s+)?|\s+or\s+", named[1].strip())) if named else ()


class _Strict(yaml.SafeLoader):
    """YAML in which a key given twice is an error: plain YAML drops the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def find(name: str | Path) -> Path:
    """The file of the profile called `name`, which may also be a path to a YAML file."""
    named = Path(name)
    if named.suffix in (".yml", ".yaml"):
        path = named if named.is_absolute() else home() / named
        if path.is_file():
            return path
        raise ValueError(f"there is no profile file {named}")
    folder = home() / "notebooks" / "profiles"
    there = sorted(path.stem for path in folder.glob("*.yml"))
    if str(name) not in there:
        raise ValueError(
            f"there is no profile {name}{_nearest(name, there)} in {_short(folder)}; "
            f"there are: {', '.join(there) or 'none'}"
        )
    return folder / f"{name}.yml"


def read(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Read a profile and check it against the parameters cells of its notebooks.

    `path` is a file or the name of one in ``notebooks/profiles``. `overrides` (``data=...`` and the like
    from the command line) go to every notebook that has the parameter and win over the file.
    Raises ValueError with every fault found, each with the run, the key, the value and what would be right.
    """
    path = find(path)
    overrides = dict(overrides or {})
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Strict)
    except yaml.YAMLError as error:
        raise ValueError(f"{_short(path)} is not readable as YAML: {error}") from None
    faults: list[str] = []
    if not isinstance(content, dict) or not isinstance(content.get("runs"), dict) or not content["runs"]:
        raise ValueError(
            f"{_short(path)}: a profile is title, description, common and runs, "
            "with at least one run under runs"
        )
    known = ["title", "description", "common", "runs"]
    faults += [
        f"{key} is no key of a profile{_nearest(key, known)}; it has: {', '.join(known)}"
        for key in content
        if key not in known
    ]
    common = content.get("common") or {}
    if not isinstance(common, dict):
        faults.append(f"common is {common!r}; it should be keys and values, or left out")
        common = {}
    entries, wrong = _swept(content["runs"], overrides)
    faults += wrong
    listed = {name: given for each in entries.values() for name, given in each.items()}
    entry_of = {name: entry for entry, each in entries.items() for name in each}

    runs, has = {}, {}
    for name, given in listed.items():
        given = {} if given is None else given
        if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
            faults.append(f"run {name!r}: a name is letters, digits, _, - and . (it becomes a folder)")
            continue
        if not isinstance(given, dict):
            faults.append(f"run {name}: {given!r} should be parameters as keys and values, or {{}}")
            continue
        notebook = Path("notebooks") / f"{given.get('notebook', name)}.ipynb"
        if not (home() / notebook).is_file():
            there = sorted(file.stem for file in (home() / "notebooks").glob("*.ipynb"))
            faults.append(
                f"run {name}: there is no {notebook.as_posix()}{_nearest(notebook.stem, there)}; "
                f"there are: {', '.join(there) or 'none'}"
            )
            continue
        try:
            has[name] = parameters(home() / notebook)
        except ValueError as error:
            faults.append(f"run {name}: {error}")
            continue
        folder = Path("runs") / path.stem / name
        own = {key: value for key, value in given.items() if key not in ("notebook", "resources")}
        if "runs" in own:
            own["runs"] = _named(own["runs"], name, entries)
        values, needs, wrong = _resolve(has[name], notebook, folder, common, own, overrides, list(listed))
        resources, unfit = _resources(common.get("resources"), given.get("resources"))
        faults += [f"run {entry_of[name]}: {text}" for text in [*wrong, *unfit]]
        runs[name] = Run(name, notebook, values, needs, folder, resources)

    everything = sorted({key for names in has.values() for key in names} - {"out"})
    for where, keys in (("common", common), ("command line", overrides)):
        faults += [
            f"{where}: {key} is a parameter of no notebook of this profile"
            f"{_nearest(key, everything)}; they have: {', '.join(everything)}"
            for key in keys
            if key not in everything and (where, key) != ("common", "resources")
        ]
    try:
        TopologicalSorter({run.name: run.needs for run in runs.values()}).prepare()
    except CycleError as error:
        faults.append(f"the runs wait for each other in a circle: {' -> '.join(error.args[1])}")
    if faults:
        lines = "\n".join(f"  - {fault}" for fault in dict.fromkeys(faults))  # a sweep's runs share theirs
        raise ValueError(f"profile {path.stem} ({_short(path)}) cannot run:\n{lines}")
    return Profile(
        path.stem,
        str(content.get("title", path.stem)),
        str(content.get("description", "")).strip(),
        path,
        runs,
    )


def _swept(listed: dict, overrides: dict) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The runs that each entry stands for, by name, and what is wrong with the entries.

    `sweep` (parameters, each with a list of values) makes a run of every combination, named after its values:
    ``NAME_ResNet18_size64_seed0``. Where `seed` itself is a list there is a run of each seed: the first keeps
    its name, others end in ``_seedN``.
    """
    entries: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for name, given in listed.items():
        name, given = str(name), {} if given is None else given
        entries[name] = {name: given}
        if not isinstance(given, dict):
            continue
        sweep, seeds = given.get("sweep", {}), given.get("seed")
        wrong = _wrong_sweep(sweep, given) if "sweep" in given else []
        swept = [*sweep, *(["seed"] if isinstance(seeds, list) else [])] if not wrong else []
        wrong += [
            f"{key} = {overrides[key]!r} on the command line, but this entry is a run of each {key}"
            for key in swept
            if key in overrides
        ]
        faults += [f"run {name}: {text}" for text in wrong]
        each = {"notebook": name, **{key: value for key, value in given.items() if key != "sweep"}}
        if "sweep" in given:
            entries[name] = {name: each} if wrong else {}
        if "sweep" in given and not wrong:
            for values in itertools.product(*sweep.values()):
                own = dict(zip(sweep, values))
                long = "_".join([name, *(_word(key, value) for key, value in own.items())])
                if long in entries[name]:
                    faults.append(
                        f"run {name}: sweep gives two runs the name {long}: values with other words would be right"
                    )
                entries[name][long] = {**each, **own}
        if isinstance(seeds, list) and seeds:
            entries[name] = {
                f"{run}_seed{seed}" if i else run: {"notebook": name, **own, "seed": seed}
                for run, own in entries[name].items()
                for i, seed in enumerate(seeds)
            }
    names = [name for each in entries.values() for name in each]
    faults += [f"{name} is the name of two runs" for name in dict.fromkeys(names) if names.count(name) > 1]
    return entries, faults


def _wrong_sweep(sweep: Any, given: dict) -> list[str]:
    if not isinstance(sweep, dict) or not sweep:
        return [f"sweep = {sweep!r}: it should be parameters, each with a list of values"]
    wrong = [
        f"sweep: {key} = {values!r} should be a list of values"
        for key, values in sweep.items()
        if not isinstance(values, list) or not values
    ]
    twice = [key for key in sweep if key in given]
    return wrong + [f"sweep: {key} has a value in the run as well, {given[key]!r}" for key in twice]


def _word(key: str, value: Any) -> str:
    """`value` of the parameter `key` as a part of a run's name: "ResNet18", "size64", "tasks-age-gender"."""
    words = re.findall(r"[\w.]+", str(value))
    if isinstance(value, (list, dict)) or len(words) != 1:
        return "-".join(words if isinstance(value, str) and words else [key, *words])
    return words[0] if isinstance(value, str) else key + words[0]


def _named(asked: Any, own: str, entries: dict[str, dict[str, Any]]) -> Any:
    """`asked`, names of runs, in which the name of a sweep or a pattern (``04_*``) stands for all its runs."""
    if not isinstance(asked, list):
        return asked
    found: list[Any] = []
    for name in asked:
        swept = list(entries.get(name, {})) if isinstance(name, str) else []
        if isinstance(name, str) and re.search(r"[*?[]", name):
            swept = [run for each in entries.values() for run in fnmatch.filter(each, name) if run != own]
        found += [run for run in swept if run not in found] if swept and name not in swept else [name]
    return found


def _resources(common: Any, own: Any) -> tuple[dict[str, Any], list[str]]:
    """What a run asks of a cluster, the run's own before what is common, and what is wrong with it."""
    wrong, asked = [], {}
    for given in (common, own):
        if not isinstance(given or {}, dict):
            wrong.append(f"resources = {given!r}: it should be keys and values, of {', '.join(RESOURCES)}")
            continue
        for key, value in (given or {}).items():
            if key not in RESOURCES:
                wrong.append(
                    f"resources: {key} = {value!r}: {key} is none{_nearest(key, RESOURCES)}; "
                    f"there are: {', '.join(RESOURCES)}"
                )
            elif type(value) is not RESOURCES[key] or value == "" or (RESOURCES[key] is int and value < 1):
                right = "a whole number from 1" if RESOURCES[key] is int else "a word"
                wrong.append(f"resources: {key} = {value!r}: it should be {right}")
            asked[key] = value
    return asked, wrong


def parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name, as papermill sees them; ValueError if there are none to see."""
    return dict(_parameters(Path(notebook), Path(notebook).stat().st_mtime_ns))


@functools.lru_cache(maxsize=None)
def _parameters(notebook: Path, _changed: int) -> dict[str, Parameter]:
    from papermill.inspection import inspect_notebook  # slow to import

    logging.getLogger("papermill").setLevel(logging.WARNING)
    found = {}
    for name, line in inspect_notebook(notebook).items():
        try:
            default = ast.literal_eval(line["default"])
        except (ValueError, SyntaxError):
            raise ValueError(
                f"{_short(notebook)}: the default of {name}, {line['default']}, "
                "should be a plain value; compute from it in the next cell"
            ) from None
        kind = line["inferred_type_name"]
        kind = type(default).__name__ if kind == "None" else kind
        if not fits(default, kind):
            raise ValueError(f"{_short(notebook)}: the default of {name}, {default!r}, is no {kind}")
        found[name] = Parameter(name, kind, default, line["help"])
    if not found:
        raise ValueError(
            f"{_short(notebook)} has no parameters: one cell tagged `parameters`, "
            "each line `name: type = default  # meaning`"
        )
    return found


def _resolve(
    has: dict[str, Parameter],
    notebook: Path,
    folder: Path,
    common: dict,
    own: dict,
    overrides: dict,
    names: list[str],
) -> tuple[dict[str, Any], tuple[str, ...], list[str]]:
    """Every parameter of one run, the runs it needs, and what is wrong with it."""
    wrong = [
        f"{key} = {own[key]!r}: {key} is no parameter of {notebook.as_posix()}{_nearest(key, has)}; "
        f"it has: {', '.join(has)}"
        for key in own
        if key not in has
    ]
    given = {key: value for key, value in {**common, **own}.items() if key in has}
    for key, value in overrides.items():
        if key in has:  # a command line can't tell the name 2024 from the number
            given[key] = str(value) if has[key].type == "str" else value
    if "out" in given:
        wrong.append(f"out = {given['out']!r}: the folder follows from the names; leave out away")
    values, needs = {key: parameter.default for key, parameter in has.items()}, ()
    for key, value in given.items():
        parameter = has[key]
        if not fits(value, parameter.type):
            wrong.append(
                f"{key} = {value!r} is {type(value).__name__}; it should be {parameter.type}"
                + (f" ({parameter.help})" if parameter.help else "")
            )
        elif parameter.choices and isinstance(value, str) and value not in parameter.choices:
            wrong.append(
                f"{key} = {value!r}{_nearest(value, parameter.choices)}; "
                f"it should be one of {', '.join(parameter.choices)}"
            )
        values[key] = float(value) if parameter.type == "float" and type(value) is int else value
    if fits(values.get("runs"), "list"):
        stored = [name for name in values["runs"] if (home() / str(name) / "predictions.parquet").is_file()]
        for name in values["runs"]:
            if name not in [*names, *stored]:
                wrong.append(
                    f"runs = {values['runs']!r}: {name} is no run of this profile"
                    f"{_nearest(name, names)}; there are: {', '.join(names)}"
                )
        needs = tuple(str(name) for name in values["runs"] if name not in stored)
        values["runs"] = [
            name if name in stored else (folder.parent / str(name)).as_posix() for name in values["runs"]
        ]
    for key in ("recipe", "model"):  # what a run of this profile finds, or trains
        if (found := values.get(key)) in names:
            needs += (str(found),)
            values[key] = (folder.parent / str(found)).as_posix()
    if "out" in has:
        values["out"] = folder.as_posix()
    return values, needs, wrong


def fits(value: Any, annotation: str) -> bool:
    """Whether `value` is of the type an annotation names, e.g. ``int``, ``list[str]`` or ``str | None``.

    A whole number will do for a float; True and False are no numbers. Raises ValueError for other types.
    """

    def match(value: Any, node: ast.expr) -> bool:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return match(value, node.left) or match(value, node.right)
        if isinstance(node, ast.Subscript):
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if not match(value, node.value):
                return False
            if isinstance(value, dict):
                return len(inner) == 2 and all(
                    match(k, inner[0]) and match(v, inner[1]) for k, v in value.items()
                )
            return all(match(item, inner[0]) for item in value)
        name = node.id if isinstance(node, ast.Name) else str(getattr(node, "value", ""))
        if name not in PLAIN:
            raise ValueError(f"a parameter's type is made of {', '.join(PLAIN)}, not {annotation}")
        if name == "float":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        return type(value) is PLAIN[name]

    return match(value, ast.parse(annotation, mode="eval").body)


def switch(name: str, value: Any) -> bool:
    """True or False as the command line gives them; ValueError for anything else."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError(f"{name}={value}: it should be true or false")
    return words[str(value).lower()]


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook's file; their sources may be lists of lines. ValueError where it is none.

    Each run asks for them, and importing nbformat would take its kernel a second.
    """
    try:
        return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{_short(notebook)} is not a notebook of nbformat 4 ({error}); one saved by Jupyter would be right") from None


def sources(notebook: Path | str) -> list[Path]:
    """The modules of this package that a notebook uses, directly or through others, sorted.

    Found by reading the imports, also those inside functions; `RUNNERS` are left out.
    """
    notebook = Path(notebook)
    written = ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]
    code = [re.sub(r"^\s*[%!].*$", "pass", cell, flags=re.M) for cell in written if not cell.startswith("%%")]
    try:
        todo = _imports(ast.parse("\n".join(code)), "")
    except SyntaxError as error:
        raise ValueError(f"{_short(notebook)}: {error.msg} in {error.text!r}") from None
    found: set[Path] = set()
    while todo:
        module = todo.pop()
        if module in found or (module.parent == PACKAGE and module.stem in RUNNERS):
            continue
        found.add(module)
        inside = ".".join(module.relative_to(PACKAGE.parent).parent.parts)
        todo |= _imports(ast.parse(module.read_text(encoding="utf-8")), inside)
    return sorted(found)


def _imports(tree: ast.AST, package: str) -> set[Path]:
    """The files of this package that `tree`, a module inside `package` (dotted), imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    files: set[Path] = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != PACKAGE.name:
            continue
        for end in range(1, len(parts) + 1):  # importing a.b.c runs a/__init__.py and a/b/__init__.py too
            stem = PACKAGE.parent.joinpath(*parts[:end])
            files |= {file for file in (stem / "__init__.py", stem.with_suffix(".py")) if file.is_file()}
    return files


def _nearest(name: Any, names: Iterable[str]) -> str:
    close = get_close_matches(str(name), [str(other) for other in names], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _short(path: Path) -> str:
    return path.relative_to(home()).as_posix() if path.is_relative_to(home()) else path.name
