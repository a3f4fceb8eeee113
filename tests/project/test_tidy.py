"""The project's own rules, kept by tests: small files and functions, told in prose, nothing left unfinished."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
BENCH = sorted((ROOT / "bench").rglob("*.py"))
PYTHON = [
    *SOURCES,
    *BENCH,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "scripts").rglob("*.py")),
]
LONGEST_FUNCTION = 70
LONGEST_FILE = 400
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|pragma: no cover")
DOUBLES = re.compile(r"\b(unittest\.mock|MagicMock|mock\.patch|monkeypatch\.setattr)\b")


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=short)
def test_a_file_is_small_and_opens_with_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with a paragraph: what it is for, what it may not do"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", [*SOURCES, *BENCH], ids=short)
def test_nothing_in_the_product_is_unfinished(path: Path) -> None:
    assert not UNFINISHED.search(path.read_text())


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=short)
def test_what_we_exist_to_drive_is_never_replaced_by_a_double(path: Path) -> None:
    if path != Path(__file__):
        assert not DOUBLES.search(path.read_text())


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(item for group in project["project"]["optional-dependencies"].values() for item in group),
        *(item for group in project["dependency-groups"].values() for item in group),
    ]
    page = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()
    missing = [name for item in wanted if (name := re.split(r"[\[<>=]", item)[0]) not in page]
    assert not missing


def test_the_readme_names_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert "test" in named
    assert named <= targets


def test_relative_links_in_the_docs_resolve() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        broken += [f"{short(page)}: {target}" for target in targets if not (page.parent / target).exists()]
    assert not broken


def test_the_changelog_has_a_place_for_what_is_new() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_make_help_explains_every_target() -> None:
    told = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    ).stdout
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets == set(re.findall(r"make ([a-z-]+)", told))


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout.splitlines()
    return [path for name in listed if (path := ROOT / name).is_file() and path.suffix != ".lock"]


def test_nothing_committed_knows_one_machine_or_one_registry() -> None:
    # Put together here, so that this file does not find itself.
    places = [f"/{name}/" for name in ("work", "farm", "root")]
    registries = ["files.python" + "hosted.org", "simple/" + "pip", "index" + "-url", "find" + "-links"]
    strays = []
    for path in committed():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        strays += [
            f"{short(path)}: {stray}"
            for stray in [*places, *registries]
            if re.search(rf"(?<![\w.]){re.escape(stray)}", text)
        ]
    assert not strays


def test_the_pure_core_never_asks_for_the_time() -> None:
    # import-linter forbids the modules; datetime is a type there, and only its clocks are forbidden.
    clocks = re.compile(r"\.(now|utcnow|today)\(")
    assert not [
        short(path) for path in SOURCES if path.parent.name == "decide" and clocks.search(path.read_text())
    ]


def test_the_architecture_page_draws_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "src" / "hmsdr").glob("*/__init__.py")}
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawing = page.split("```mermaid", 1)[1].split("```", 1)[0]
    missing = [room for room in sorted(rooms - {"sim"}) if not re.search(rf"\b{room}\b", drawing)]
    assert not missing
    layers = (ROOT / ".importlinter").read_text()
    assert not [room for room in sorted(rooms - {"sim"}) if f"hmsdr.{room}" not in layers]


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.sh")), ids=short)
def test_a_script_can_be_read_by_its_shell_and_be_run(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True, timeout=10)
    assert path.stat().st_mode & 0o111
    assert path.read_text().splitlines()[1].startswith("# "), "the second line says what it is for"
