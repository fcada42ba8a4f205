"""Each gate finds a violation planted in a small tree, judged by this repository's own configuration."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent

LAYERS = ("cli", "rest", "bootstrap", "settings", "service", "storage", "client", "model")
BACKENDS = ("storage/inmemory", "storage/sqlite")


def run(where: Path, program: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the tools, or a program by its path; what it says on both streams is its `stdout`."""
    return subprocess.run(
        [TOOLS / program, *arguments],
        cwd=where,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def plant(tree: Path, files: dict[str, str]) -> Path:
    """Write the files beside this repository's pyproject.toml."""
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tree


LINT = {
    "BLE001": "try:\n    print()\nexcept Exception:\n    raise_it = False\n",
    "S110": "try:\n    int('x')\nexcept Exception:\n    pass\n",
    "PLC0415": "def load() -> None:\n    import json\n",
    "DTZ": "from datetime import datetime\n\nWHEN = datetime(2026, 1, 1)\n",
    "S608": 'def find(name: str) -> str:\n    return f"SELECT * FROM memories WHERE key = {name}"\n',
    "FBT": "def store(key: str, durable: bool) -> None: ...\n",
    "ASYNC": "import time\n\n\nasync def wait() -> None:\n    time.sleep(1)\n",
    "T201": 'print("hello")\n',
}

BANNED = {
    "os.environ": 'import os\n\nHOME = os.environ["HOME"]\n',
    "os.getenv": 'from os import getenv\n\nHOME = getenv("HOME")\n',
    "time.time": "import time\n\nNOW = time.time()\n",
    "time.time_ns": "from time import time_ns\n\nNOW = time_ns()\n",
    "datetime.datetime.now": "from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)\n",
    "datetime.datetime.utcnow": "from datetime import datetime\n\nNOW = datetime.utcnow()\n",
    "pickle": "import pickle\n\nSTORE = pickle.dumps\n",
    "unittest.mock.patch": 'from unittest import mock\n\nFAKE = mock.patch.object(str, "upper")\n',
}


@pytest.mark.parametrize("rule", LINT)
def test_ruff_finds(rule: str, tmp_path: Path) -> None:
    tree = plant(tmp_path, {"src/unified_memory/service/planted.py": LINT[rule]})
    done = run(tree, "ruff", "check", "--no-cache", "--output-format=concise")
    assert done.returncode == 1
    assert f" {rule}" in done.stdout


@pytest.mark.parametrize("name", BANNED)
@pytest.mark.parametrize("place", ["src/unified_memory/service/planted.py", "tests/test_planted.py"])
def test_ruff_finds_the_banned(name: str, place: str, tmp_path: Path) -> None:
    tree = plant(tmp_path, {place: BANNED[name]})
    done = run(tree, "ruff", "check", "--no-cache", "--select=TID251", "--output-format=concise")
    assert done.returncode == 1
    assert f"TID251 `{name}" in done.stdout


def test_the_environment_and_the_clock_are_read_in_their_one_place(tmp_path: Path) -> None:
    tree = plant(
        tmp_path,
        {
            "src/unified_memory/settings.py": BANNED["os.environ"],
            "src/unified_memory/model/clock.py": BANNED["time.time_ns"],
            "src/unified_memory/service/timer.py": "import time\n\nSTARTED = time.monotonic()\n",
        },
    )
    done = run(tree, "ruff", "check", "--no-cache", "--select=TID251")
    assert done.returncode == 0, done.stdout


def test_ruff_finds_what_is_not_formatted(tmp_path: Path) -> None:
    tree = plant(tmp_path, {"src/unified_memory/model/planted.py": "X = {  'a':1 }\n"})
    assert run(tree, "ruff", "format", "--no-cache", "--check").returncode == 1


def test_mypy_finds_an_untyped_function_wherever_it_stands(tmp_path: Path) -> None:
    folders = ("src/unified_memory", "tests", "benchmarks", "mcpb")
    untyped = "def store(key, value):\n    return key\n"
    plant(tmp_path, {f"{folder}/__init__.py": "" for folder in folders})
    plant(tmp_path, {f"{folder}/planted.py": untyped for folder in folders})
    done = run(tmp_path, "mypy")
    assert done.returncode == 1
    for folder in folders:
        assert f"{folder}/planted.py:1: error: Function is missing a type annotation" in done.stdout


def layered(tree: Path, **code: str) -> subprocess.CompletedProcess[str]:
    """Ask import-linter about an otherwise empty tree of all layers; `__` parts a module from its package."""
    modules = dict.fromkeys((*LAYERS, *BACKENDS), "")
    modules |= {name.replace("__", "/"): text for name, text in code.items()}
    files = {f"src/unified_memory/{name}/__init__.py": text for name, text in modules.items()}
    # The planted package is to be found before the installed one.
    files["lint.py"] = (
        "import sys\nfrom importlinter.cli import lint_imports_command\n"
        "sys.path.insert(0, 'src')\nlint_imports_command()\n"
    )
    plant(tree, files | {"src/unified_memory/__init__.py": ""})
    return run(tree, sys.executable, "lint.py", "--no-cache")


def test_layers_that_point_down_are_kept(tmp_path: Path) -> None:
    done = layered(
        tmp_path,
        cli="import typer, rich, uvicorn\nfrom unified_memory import bootstrap, client, rest",
        rest="import starlette\nfrom unified_memory import service",
        bootstrap="from unified_memory import settings, service, storage",
        service="from unified_memory import storage, model",
        storage__sqlite="import apsw\nfrom unified_memory import model",
        client="import httpx2\nfrom unified_memory import model",
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "code", "contract"),
    [
        ("service", "from unified_memory import rest", "Every import points down"),
        ("settings", "from unified_memory import bootstrap", "Every import points down"),
        ("client", "from unified_memory import storage", "Every import points down"),
        ("client", "from unified_memory import settings", "Every import points down"),
        ("storage", "from unified_memory import client", "Every import points down"),
        ("utils", "", "Every import points down"),
        ("rest", "from unified_memory import client", "The client is used by the outside only"),
        ("service", "import apsw", "Drivers are imported in storage only"),
        ("cli", "import sqlite3", "Drivers are imported in storage only"),
        ("service", "import starlette", "Frameworks stay in the interfaces"),
        ("storage__sqlite", "import rich", "Frameworks stay in the interfaces"),
        (
            "storage__sqlite",
            "from unified_memory.storage import inmemory",
            "Storage backends know nothing of each other",
        ),
    ],
)
def test_import_linter_finds(module: str, code: str, contract: str, tmp_path: Path) -> None:
    done = layered(tmp_path, **{module: code})
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


def test_deptry_finds_an_undeclared_import(tmp_path: Path) -> None:
    tree = plant(tmp_path, {"src/unified_memory/__init__.py": "import yaml\n"})
    done = run(tree, "deptry", "src", "--no-ansi")
    assert done.returncode == 1
    assert "DEP001 'yaml'" in done.stdout or "DEP003 'yaml'" in done.stdout


def test_shellcheck_finds_an_unquoted_variable(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env bash\nrm -r $1\n", encoding="utf-8")
    assert "SC2086" in run(tmp_path, "shellcheck", "script").stdout


def test_mkdocs_finds_a_broken_link(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Start\n\n[there](missing.md)\n", encoding="utf-8")
    done = run(tmp_path, "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site"))
    assert done.returncode == 1
    assert "missing.md" in done.stdout


class TestLock:
    """scripts/lock --check, with an index that is a folder of one wheel."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        wheels = tmp_path / "wheels"
        wheels.mkdir()
        self.release(wheels, "1.0")
        (tmp_path / "pyproject.toml").write_text(
            '[project]\nname = "planted"\nversion = "1"\nrequires-python = ">=3.11"\n'
            'dependencies = ["thing>=1"]\n'
            '[project.optional-dependencies]\nsemantic = ["thing"]\ns3 = ["thing"]\nencrypt = ["thing"]\nfastapi = ["thing"]\n'
            '[dependency-groups]\nbuild = ["thing"]\ndev = ["thing"]\n'
            f'[tool.uv]\nno-index = true\nfind-links = ["{wheels}"]\n',
            encoding="utf-8",
        )
        (tmp_path / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/lock", tmp_path / "scripts")
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/bin/uv").symlink_to(TOOLS / "uv")
        written = self.lock(tmp_path)
        assert written.returncode == 0, written.stdout
        return tmp_path

    @staticmethod
    def release(wheels: Path, version: str) -> None:
        with zipfile.ZipFile(wheels / f"thing-{version}-py3-none-any.whl", "w") as wheel:
            about = f"thing-{version}.dist-info"
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")

    @staticmethod
    def lock(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(tree, tree / "scripts/lock", *arguments)

    def test_a_true_lock_passes_also_when_a_newer_release_is_out(self, tree: Path) -> None:
        self.release(tree / "wheels", "1.1")
        done = self.lock(tree, "--check")
        assert done.returncode == 0, done.stdout

    def test_a_stale_hash_is_found(self, tree: Path) -> None:
        lock = tree / "requirements.lock"
        wheel = tree / "wheels/thing-1.0-py3-none-any.whl"
        true = hashlib.sha256(wheel.read_bytes()).hexdigest()
        stale = hashlib.sha256(b"something else").hexdigest()
        assert true in lock.read_text(encoding="utf-8")
        lock.write_text(lock.read_text(encoding="utf-8").replace(true, stale), encoding="utf-8")
        done = self.lock(tree, "--check")
        assert done.returncode == 1
        assert stale in done.stdout

    def test_a_dependency_that_was_not_locked_is_found(self, tree: Path) -> None:
        project = tree / "pyproject.toml"
        changed = project.read_text(encoding="utf-8").replace('"thing>=1"', '"thing>=1.1"')
        project.write_text(changed, encoding="utf-8")
        self.release(tree / "wheels", "1.1")
        done = self.lock(tree, "--check")
        assert done.returncode == 1
        assert "+thing==1.1" in done.stdout

    def test_an_index_that_does_not_answer_is_told(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        project = tree / "pyproject.toml"
        project.write_text(project.read_text(encoding="utf-8").split("[tool.uv]")[0], encoding="utf-8")
        monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1")
        monkeypatch.setenv("UV_CACHE_DIR", str(tree / "cache"))
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        done = self.lock(tree, "--check")
        assert done.returncode == 0
        assert done.stdout.startswith("NOT CHECKED: requirements.lock")


class TestPytest:
    """The repository's own pytest settings and tests/conftest.py, over planted tests."""

    @staticmethod
    def judge(tree: Path, test: str, *arguments: str) -> str:
        plant(tree, {"tests/test_planted.py": f"import warnings\n\nimport pytest\n\n\n{test}"})
        shutil.copy(ROOT / "tests/conftest.py", tree / "tests")
        return run(tree, "pytest", "-p", "no:cacheprovider", "-p", "no:schemathesis", *arguments).stdout

    def test_a_warning_is_an_error(self, tmp_path: Path) -> None:
        assert "1 failed" in self.judge(tmp_path, "def test_it():\n    warnings.warn('old', stacklevel=1)\n")

    def test_an_unknown_marker_is_an_error(self, tmp_path: Path) -> None:
        assert "'slwo' not found" in self.judge(tmp_path, "@pytest.mark.slwo\ndef test_it():\n    pass\n")

    def test_slow_and_system_tests_run_with_all_only(self, tmp_path: Path) -> None:
        slow = "@pytest.mark.slow\ndef test_slow():\n    pass\n"
        system = "@pytest.mark.system('sh')\ndef test_system():\n    pass\n"
        assert "2 deselected" in self.judge(tmp_path, slow + system)
        assert "2 passed" in self.judge(tmp_path, slow + system, "--all")

    @pytest.mark.parametrize(("ci", "outcome"), [("true", "1 error"), ("", "1 skipped")])
    def test_an_absent_program_fails_in_ci_and_is_skipped_at_a_desk(
        self, ci: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CI", ci)
        test = "@pytest.mark.system('no-such-program')\ndef test_it():\n    pass\n"
        assert outcome in self.judge(tmp_path, test, "--all")
