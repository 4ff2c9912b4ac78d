"""The lints, as tests, and what the files that build, test and ship this project promise."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))


def run(
    *command: str | Path, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    # Under `make test`, a MAKEFLAGS of the outer make would reach the make inside.
    inherited = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, check=False
    )


def assert_says_nothing_bad(*command: str | Path) -> None:
    done = run(*command)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def tool(name: str) -> Path:
    return Path(sys.prefix, "bin", name)


# Lints


def test_ruff_finds_nothing() -> None:
    assert_says_nothing_bad(tool("ruff"), "check", ".")


def test_the_sources_are_as_ruff_formats_them() -> None:
    assert_says_nothing_bad(tool("ruff"), "format", "--check", ".")


def test_the_package_is_typed_strictly() -> None:
    assert_says_nothing_bad(tool("mypy"))


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert_says_nothing_bad(tool("hadolint"), "Dockerfile")


def test_the_image_installs_by_hash_or_without_an_index() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip(?: --python \S+)? install [^&\n]*", dockerfile)
    assert len(installs) == 3
    assert all("--require-hashes" in one or "--no-deps --no-index" in one for one in installs)


def test_the_image_runs_as_a_user_by_number() -> None:
    users = re.findall(r"(?m)^USER (.*)$", (ROOT / "Dockerfile").read_text())
    assert users[-1:] == ["10001:10001"]


@pytest.mark.parametrize("script", [".ci/run", "requirements/environment.sh"])
def test_scripts_can_be_run_and_parsed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    shell = (ROOT / script).read_text().splitlines()[0].split("/")[-1].split()[-1]
    assert_says_nothing_bad(shell, "-n", script)


# What is committed

# Bracketed, so that no pattern matches itself.
FOREIGN = re.compile(
    r"""(?<![\w.\-}]) / (?:root|work|Users) / \w     # a path that exists on one machine
      | --(?:extra-)?index[-]url | --find[-]links    # an index is the business of who installs
      | registry[.]npmjs | files[.]pythonhosted | :// [\w.:\-]+ /simple\b""",
    re.VERBOSE,
)


def committed_files() -> list[Path]:
    listing = run("git", "ls-files", "-z")
    if listing.returncode:
        pytest.skip("not a checkout: nothing says which files are committed")
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_committed_file_names_a_machine_or_a_package_index() -> None:
    found = []
    for path in committed_files():
        text = path.read_text(errors="replace") if path.is_file() else ""
        for match in FOREIGN.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match[0]}")
    assert not found, "\n".join(found)


# Locks


def locked(lock: Path) -> list[Requirement]:
    lines = lock.read_text().splitlines()
    return [Requirement(line.rstrip("\\ ")) for line in lines if re.match(r"\w", line)]


def behind(wanted: Sequence[str], lock: Path) -> list[str]:
    """Of the requirements `wanted`, those that no line of `lock` satisfies."""
    pins = {canonicalize_name(pin.name): pin for pin in locked(lock)}
    missing = []
    for requirement in map(Requirement, wanted):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None or not requirement.specifier.contains(str(pin.specifier)[2:]):
            missing.append(str(requirement))
    return missing


def inputs(name: str) -> list[str]:
    return (REQUIREMENTS / f"{name}.in").read_text().split()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_and_hashes_every_package(lock: Path) -> None:
    entries = re.split(r"\n(?=\w)", lock.read_text())[1:]
    assert entries
    assert [e for e in entries if "--hash=sha256:" not in e] == []
    assert [str(p) for p in locked(lock) if not str(p.specifier).startswith("==")] == []


@pytest.mark.parametrize("name", ["build", "emulator", "node", "lock"])
def test_a_lock_has_what_its_input_asks_for(name: str) -> None:
    assert behind(inputs(name), REQUIREMENTS / f"{name}.txt") == [], "run make lock"


def test_the_locks_have_what_pyproject_asks_for() -> None:
    project = PYPROJECT["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    assert behind(project["dependencies"], REQUIREMENTS / "runtime.txt") == [], "run make lock"
    assert behind(extras, REQUIREMENTS / "dev.txt") == [], "run make lock"


def test_tests_run_on_the_versions_that_the_image_has() -> None:
    runtime, dev = (
        {(pin.name, str(pin.specifier)) for pin in locked(REQUIREMENTS / f"{name}.txt")}
        for name in ("runtime", "dev")
    )
    assert runtime - dev == set()


def test_the_build_backend_is_locked_because_nothing_is_built_in_isolation() -> None:
    wanted = PYPROJECT["build-system"]["requires"]
    assert inputs("build") == wanted
    assert behind(wanted, REQUIREMENTS / "dev.txt") == []


# The package


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    def sources(top: Path) -> set[str]:
        files = (path for path in top.rglob("*") if path.is_file())
        return {str(p.relative_to(top.parent)) for p in files if "__pycache__" not in p.parts}

    # Elsewhere, since the build leaves a folder behind.
    shutil.copytree(
        ROOT / "processor", tmp_path / "processor", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("README.md", "LICENSE"):
        (tmp_path / name).touch()
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    done = run(*pip, "--wheel-dir", "dist", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("dist/*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    missing = sorted(sources(tmp_path / "processor") - held)
    assert missing == [], "name them under [tool.setuptools.package-data]"


# Set-up


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def set_up(stamp: Path, python: str | Path) -> subprocess.CompletedProcess[str]:
    lock = stamp.parents[1] / "empty.txt"
    lock.touch()
    return run("requirements/environment.sh", stamp, lock, PYTHON=str(python))


def test_an_environment_without_its_stamp_is_built_anew_and_one_with_it_is_left_alone(
    tmp_path: Path,
) -> None:
    stamp = tmp_path / "env" / ".stamp-1"
    half_built = tmp_path / "env" / "half-built"
    stamp.parent.mkdir()
    half_built.touch()
    first = set_up(stamp, sys.executable)
    assert first.returncode == 0, first.stderr
    assert stamp.exists()
    assert not half_built.exists()
    assert first.stdout == "", "stdout belongs to what runs after the set-up"

    half_built.touch()
    assert set_up(stamp, sys.executable).stderr == ""
    assert half_built.exists()


def test_without_venv_the_set_up_names_the_package_to_install(tmp_path: Path) -> None:
    python = program(
        tmp_path / "python3.11",
        "case $2 in *ensurepip*) exit 1 ;; *print*) echo python3.11-venv ;; esac",
    )
    done = set_up(tmp_path / "env" / ".stamp-1", python)
    assert done.returncode == 1
    assert "install the package python3.11-venv" in done.stderr


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    done = set_up(tmp_path / "env" / ".stamp-1", program(tmp_path / "python3.9", "exit 1"))
    assert done.returncode == 1
    assert "is not a Python of 3.11 or later" in done.stderr


@pytest.mark.parametrize(
    ("printed", "status"), [("=== 3 passed in 0.12s ===", 0), ("=== 1 failed in 61.20s ===", 2)]
)
def test_ci_ends_on_the_closing_line_of_pytest_with_its_status(
    tmp_path: Path, printed: str, status: int
) -> None:
    make = f"test $1 = test || exit 9\necho '{printed}'\necho 'make: more' >&2\nexit {status}"
    program(tmp_path / "make", make)
    done = run(".ci/run", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == printed
