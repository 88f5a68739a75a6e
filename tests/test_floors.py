"""The plan of the house: imports point down, rooms are entered by their door, files and functions stay small."""

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "mace_bounds"
FILES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))

FLOORS = (
    {"structures", "head", "metrics"},
    {"backbones"},
    {"features", "materials_project", "examples"},
    {"calibration", "plots"},
    {"decisions", "propagation"},
    {"bounds"},
    {"fitting", "calculator"},
    {"auditing"},
    {"pipeline", "benchmark", "service", "client"},
    {"cli"},
)
GROUND = {
    "_io",
    "columns",
    "errors",
    "flags",
    "levels",
    "screen",
    "settings",
    "tables",
    "threads",
    "versions",
}
"""Single files under all rooms, which may use each other."""

FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MOST_LINES, MOST_PARAMETERS = 400, 7


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((SOURCE / path).read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def imports(path: Path):
    """Yield (line, absolute module, names) of every import in a file, inside of functions too."""
    package = ("mace_bounds", *path.with_suffix("").parts)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, []
        elif isinstance(node, ast.ImportFrom):
            parts = list(package[: -node.level]) if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            yield node.lineno, module, [alias.name for alias in node.names]


def targets(path: Path):
    """Yield (line, parts after ``mace_bounds``) of what a file imports of this package."""
    for line, module, names in imports(path):
        head, *rest = module.split(".")
        if head == "mace_bounds":
            if rest:
                yield line, rest
            else:
                yield from ((line, [name]) for name in names)


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms - GROUND == set(FLOOR_OF)
    assert rooms >= GROUND


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_imports_point_down(room):
    wrong = [
        f"{path}:{line} imports {target[0]}"
        for path in FILES
        if room_of(path) == room
        for line, target in targets(path)
        if target[0] not in {*GROUND, room} and not FLOOR_OF.get(target[0], 99) < FLOOR_OF[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_ground_needs_no_room():
    wrong = [
        f"{path}:{line}"
        for path in FILES
        if room_of(path) in GROUND
        for line, t in targets(path)
        if t[0] not in GROUND
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_rooms_are_entered_by_their_door(room):
    """Outside of a room only what its ``__init__`` gives is imported."""
    wrong = [
        f"{path}:{line} imports {'.'.join(target)}"
        for path in FILES
        if room_of(path) == room
        for line, target in targets(path)
        if target[0] != room and len(target) > 1
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_are_short(path):
    assert len((SOURCE / path).read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def parameters(function: ast.FunctionDef) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def functions(node: ast.AST):
    """Yield functions and methods; not those inside of functions, which see what is around them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
        else:
            yield from functions(child)


def test_functions_have_few_parameters():
    wrong = [
        f"{path}:{function.lineno} {function.name}({parameters(function)})"
        for path in FILES
        if room_of(path) not in ("cli", "settings")  # what a setting is declared with has many parts
        for function in functions(tree(path))
        if parameters(function) > MOST_PARAMETERS
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_put_into_sys_modules():
    """No stand-ins, no callable modules: ``sys.modules`` is only read."""
    wrong = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            written = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
            wrong += [f"{path}:{node.lineno}" for target in written if "sys.modules" in ast.unparse(target)]
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("sys.modules."):
                wrong += [f"{path}:{node.lineno}"] * (ast.unparse(node.func) != "sys.modules.get")
    assert not wrong, "\n".join(wrong)


def test_only_one_room_knows_mace():
    wrong = [
        f"{path}:{line} imports {module}"
        for path in FILES
        if path.parts[:2] != ("backbones", "mace")
        for line, module, _ in imports(path)
        if module.split(".")[0] in ("mace", "e3nn")
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_have_no_underscore():
    allowed = {"__init__.py", "__main__.py", "_io.py"}
    wrong = [str(path) for path in FILES if path.name.startswith("_") and path.name not in allowed]
    assert not wrong, "\n".join(wrong)
