"""The house stays in order: imports go one way, files stay short, and what must be quick loads nothing heavy."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hdrcli"

ROWS = (
    ("errors", "heap"),
    ("remote",),
    ("color", "files", "limits", "memory", "precision"),
    ("icc", "image", "lanes"),
    ("batch", "cards", "codecs", "isolation", "metrics", "rawtypes", "scene", "sensor", "tiling"),
    ("camera", "cluster", "download", "layouts", "libraw", "losses", "network", "outside", "tonemap"),
    ("nets", "probe", "protocols", "raw", "sample"),
    ("infer", "zoo"),
    ("training",),
    ("tasks",),
    ("cli",),
)
ROW_OF = {name: row for row, names in enumerate(ROWS, start=1) for name in names}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__"))

HEAVY = ("torch", "cv2", "rawpy", "OpenEXR")


def part_of(path: Path) -> str:
    """The module or folder of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and part of each import from the package, those for type checkers alone left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "hdrcli":
            names = [f"hdrcli.{alias.name}" for alias in node.names if not alias.name.startswith("__")]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide where things come from"
            names = [node.module or ""]
        else:
            yield from imported_parts(node)
            continue
        yield from ((node.lineno, name.split(".")[1]) for name in names if name.startswith("hdrcli."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in ROW_OF, f"{path.name} belongs to no row: give {part!r} one in ROWS"
    for line, other in imported_parts(ast.parse(path.read_text(encoding="utf-8"))):
        if other != part:
            assert other in ROW_OF, f"{path.name}:{line} imports hdrcli.{other}, which belongs to no row"
            assert ROW_OF[other] < ROW_OF[part], (
                f"{path.name}:{line} (row {ROW_OF[part]}) imports hdrcli.{other} (row {ROW_OF[other]})"
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path: Path) -> None:
    limit = 500 if part_of(path) == "nets" else 400
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= limit, f"{path.name} has {length} lines; {limit} are allowed"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["models", "list"], ["expand", "--help"]], ids=" ".join
)
def test_quick_commands_load_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from hdrcli.cli.main import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]", f"hdr {' '.join(arguments)} loads {done.stderr}"
