"""Imports point down only: the order of the rooms that docs/architecture.md draws."""

import ast
import importlib
import re
import subprocess
import sys

import pytest

from tests.shared import ROOT

# From the ground up. A room may import from rooms on lines above its own, and from itself. Rooms on
# one line do not import each other. A package's own name is its top: the entries, which import
# from all of its rooms.
ORDER = [
    "cxr_tfrecords.decoding cxr_tfrecords.checks cxr_tfrecords.console",
    "cxr_tfrecords",
    "cxr_tfrecords.pages cxr_tfrecords.concurrency",
    "cxr_tfrecords.statistics",
    "beam_pipelines.folders",
    "beam_pipelines.settings beam_pipelines.inputs",
    "beam_pipelines.running beam_pipelines.planning",
    "beam_pipelines.shards",
    "beam_pipelines.dataset",
    "beam_pipelines",
    "trainer.balancing trainer.models trainer.evaluation trainer.distribution",
    "trainer.settings",
    "trainer.input trainer.epochs",
    "trainer.runs",
    "trainer.training trainer.deployment",
    "trainer.tpu trainer.comparison trainer.exporting trainer.serving",
    "trainer.comparison.subgroups trainer.comparison.recipes",
    "trainer.comparison.page trainer.external trainer.labels trainer.audit",
    "trainer.card trainer.cascades",
    "trainer",
    "beam_pipelines.predict",
    "benchmarks",
    "benchmarks.build benchmarks.samplers benchmarks.training",
]
# Neither of these packages imports the other, so that a build needs no TensorFlow; but one room of
# beam_pipelines stands above both.
APART = {"beam_pipelines", "trainer"}
ABOVE_BOTH = "beam_pipelines.predict"
# The commands of the ground package lie beside its modules and use its rooms.
GROUND_COMMANDS = {"cxr_tfrecords.stats", "cxr_tfrecords.synthetic"}
# What a package gives to `import` beside its modules; docs/api.md has the same names.
PUBLIC = {
    "cxr_tfrecords": ["DatasetDir", "UserError", "load_dataset", "tfds_builder"],
    "trainer": ["Classifier", "FinishedRun", "TrainConfig", "compare_runs", "read_run", "train"],
}
MOST_FILES = 20
LARGEST_SHARE = 0.25


def _modules():
    """Module name -> file, of all packages."""
    found = {}
    for package in {room.split(".")[0] for line in ORDER for room in line.split()}:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts)] = path
    return found


MODULES = _modules()
FLOORS = {room: floor for floor, line in enumerate(ORDER) for room in line.split()}


def _room(module):
    return module.rpartition(".")[0]


def _imports(module):
    """Modules of ours that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports name their package"
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                target = name if name in MODULES else node.module
                if target in MODULES:
                    yield target
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def _wrong(module, target):
    room, other = _room(module), _room(target)
    if room == other:
        return False
    if {room.split(".")[0], other.split(".")[0]} == APART and room != ABOVE_BOTH:
        return True
    if module in GROUND_COMMANDS and other.startswith("cxr_tfrecords"):
        return False
    return FLOORS[other] >= FLOORS[room]


def test_imports_between_rooms_point_down():
    wrong = [f"{m} -> {t}" for m in MODULES for t in _imports(m) if _wrong(m, t)]
    assert not wrong, "imports against the order of the rooms: " + ", ".join(wrong)


def test_the_build_and_the_trainer_stay_apart_below_the_room_above_both():
    for module, target in [
        ("beam_pipelines.build", "beam_pipelines.predict.job"),
        ("beam_pipelines.build", "trainer.predict"),
        ("beam_pipelines.shards.passes", "trainer.deployment.predictor"),
        ("trainer.predict", "beam_pipelines.predict.job"),
        ("trainer.predict", "beam_pipelines.running.beam_runner"),
    ]:
        assert _wrong(module, target), f"{module} -> {target}"


def test_no_two_modules_import_each_other():
    edges = {module: set(_imports(module)) - {module} for module in MODULES}
    done = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(edges[module]):
                visit(target, [*path, module])
            done.add(module)

    for module in edges:
        visit(module, [])


def test_every_room_has_a_floor_and_says_what_belongs_in_it():
    rooms = {_room(module) for module in MODULES}
    assert rooms == set(FLOORS)
    for room in rooms:
        init = MODULES[f"{room}.__init__"]
        tree = ast.parse(init.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{init} says nothing of what belongs in {room}"
        # Anything more would slow down every --help, and hide what a module needs.
        imports = [
            n for n in _nodes_when_imported(tree) if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        names = [ast.unparse(node) for node in imports]
        assert names == (["from typing import TYPE_CHECKING, Any"] if room in PUBLIC else []), init


def _nodes_when_imported(tree):
    """Statements that importing a module executes: not those of functions or for type checkers."""
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield from [node] if isinstance(node, ast.FunctionDef) else ast.walk(node)


def test_the_page_on_architecture_names_every_room_and_nothing_that_is_not_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tops = {"beam_pipelines", "trainer", "benchmarks"}
    asked = re.findall(r"^\| `([\w.]+)` \| .+\? ?.*\|$", page, re.MULTILINE)
    assert sorted(asked) == sorted(set(FLOORS) - tops)
    names = re.findall(r"`((?:trainer|beam_pipelines|cxr_tfrecords|benchmarks)\.[\w.]+)`", page)
    assert len(names) > len(asked)
    for name in names:
        _resolve(name)
    for path in re.findall(r"`((?:trainer|tests|beam_pipelines|cxr_tfrecords)/[\w/]+\.py)`", page):
        assert (ROOT / path).is_file(), path


def _resolve(name):
    """The module, or the attribute of one, of a dotted name."""
    parts = name.split(".")
    length = len(parts)
    while ".".join(parts[:length]) not in {*MODULES, *FLOORS}:
        length -= 1
    found = importlib.import_module(".".join(parts[:length]))
    for part in parts[length:]:
        found = getattr(found, part)
    return found


def test_rooms_are_of_a_size_to_be_overlooked():
    lines = {
        module: path.read_text(encoding="utf-8").count("\n") for module, path in MODULES.items()
    }
    for room in FLOORS:
        inside = [m for m in MODULES if _room(m) == room and not m.endswith("__init__")]
        assert len(inside) <= MOST_FILES, room
        package = room.split(".")[0]
        if package in ("trainer", "beam_pipelines") and room != package:
            whole = sum(n for m, n in lines.items() if m.split(".")[0] == package)
            share = sum(lines[m] for m in inside) / whole
            assert share <= LARGEST_SHARE, f"{room} is {share:.0%} of {package}"


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_stable_and_listed_in_the_docs(package):
    module = importlib.import_module(package)
    assert module.__all__ == PUBLIC[package]
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in PUBLIC[package]:
        assert callable(getattr(module, name))
        assert f"`{package}.{name}" in page
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing


@pytest.mark.parametrize(
    "entry",
    ["trainer", "trainer.api", "trainer.main", "trainer.compare", "beam_pipelines.build"],
)
def test_help_loads_no_library_that_takes_seconds(entry):
    code = (
        f"import sys, importlib; importlib.import_module('{entry}');"
        "slow = ('tensorflow', 'keras', 'apache_beam', 'matplotlib');"
        "print([m for m in slow if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_tests_mirror_the_rooms():
    missing = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests" / "trainer").rglob("test_*.py")
        if path.parent != ROOT / "tests" / "trainer"
        and not (ROOT / path.parent.relative_to(ROOT / "tests")).is_dir()
    ]
    assert not missing
