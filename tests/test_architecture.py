"""Imports point down only: the order of the rooms that docs/architecture.md draws."""

import ast
import subprocess
import sys

import pytest

from tests.shared import ROOT

# From the ground up. A room may import from rooms on lines above its own, and from itself. Rooms on
# one line do not import each other. A package's own name is its top: the entries, which import
# from all of its rooms.
ORDER = [
    "cxr_tfrecords",
    "cxr_tfrecords.pages",
    "cxr_tfrecords.statistics",
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
    "trainer.tpu trainer.comparison",
    "trainer.comparison.page",
    "trainer",
    "benchmarks",
    "benchmarks.build benchmarks.samplers benchmarks.training",
]
# Neither of these packages imports the other.
APART = {"beam_pipelines", "trainer"}
# The commands of the ground package lie beside its modules and use its rooms.
GROUND_COMMANDS = {"cxr_tfrecords.stats"}
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
    if {room.split(".")[0], other.split(".")[0]} == APART:
        return True
    if module in GROUND_COMMANDS and other.startswith("cxr_tfrecords"):
        return False
    return FLOORS[other] >= FLOORS[room]


def test_imports_between_rooms_point_down():
    wrong = [f"{m} -> {t}" for m in MODULES for t in _imports(m) if _wrong(m, t)]
    assert not wrong, "imports against the order of the rooms: " + ", ".join(wrong)


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
        assert not any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(tree)), init


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


@pytest.mark.parametrize("entry", ["trainer.main", "trainer.compare", "beam_pipelines.build"])
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
