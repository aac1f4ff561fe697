"""What holds the project together: requirements and their lock, packages, layers, documented settings.

Nothing here runs a model; the code is read as syntax, never imported, except for the settings' own classes.
"""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic import BaseModel

from desk.desk_file import DeskFile

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
DEVELOPMENT = ROOT / "requirements-dev.txt"
LOCK = ROOT / "requirements.lock"
MEGABYTE = 1_000_000

MAY_IMPORT = {
    "desk": set[str](),
    "index": {"desk"},
    "adapters": {"desk"},
    "chains": {"desk", "index", "adapters"},
    "app": {"desk", "index", "adapters", "chains"},
    "evaluation": {"desk", "index", "adapters", "chains", "app"},
}
"""The layers: who may import whom, beside itself. Nothing may import `evaluation`."""

SWITCHES = {
    "GRADIO_ANALYTICS_ENABLED",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_OFFLINE",
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS",
    "TRANSFORMERS_OFFLINE",
    "TRANSFORMERS_VERBOSITY",
}
"""Settings of other people's libraries that our code may give a default by os.environ.setdefault."""


# Requirements and lock


def requirements(path: Path) -> dict[str, Requirement]:
    """The requirements of a file by canonical name."""
    lines = (line.split(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def locked() -> dict[str, Version]:
    """The lock's versions by canonical name."""
    lines = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def needed(roots: dict[str, Requirement]) -> set[str]:
    """The names of all packages that `roots` need, directly or not, as installed in this environment.

    CUDA packages are left out: torch's default build needs them, its CPU build does not.
    """
    names: set[str] = set()
    pending = [(name, extra) for name, root in roots.items() for extra in ("", *root.extras)]
    seen = set(pending)
    while pending:
        name, extra = pending.pop()
        names.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            child = canonicalize_name(requirement.name)
            if child.startswith(("nvidia-", "cuda-")) or child == "triton":
                continue
            for item in ((child, wanted) for wanted in ("", *requirement.extras)):
                if item not in seen:
                    seen.add(item)
                    pending.append(item)
    return names


@pytest.mark.parametrize("path", [REQUIREMENTS, DEVELOPMENT], ids=lambda path: path.name)
def test_every_requirement_has_a_lower_and_an_upper_bound(path: Path) -> None:
    for name, requirement in requirements(path).items():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {"=="} or operators == {">=", "<"}, name


def test_torch_is_pinned_without_a_build_label() -> None:
    assert str(requirements(REQUIREMENTS)["torch"]) == "torch==2.13.0"


@pytest.mark.parametrize("path", [REQUIREMENTS, DEVELOPMENT], ids=lambda path: path.name)
def test_the_lock_satisfies_the_requirements(path: Path) -> None:
    versions = locked()
    for name, requirement in requirements(path).items():
        assert name in versions, f"{name} is not in requirements.lock: make lock"
        assert versions[name] in requirement.specifier, f"{requirement}, but locked {versions[name]}: make lock"


def test_the_lock_holds_names_and_versions_alone() -> None:
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line
    assert not [name for name in locked() if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_no_requirement_file_names_an_index() -> None:
    for path in (REQUIREMENTS, DEVELOPMENT, LOCK):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text and not re.search(r"^\s*-", text, re.MULTILINE), path.name


def test_the_lock_holds_what_the_requirements_need_and_nothing_else() -> None:
    assert set(locked()) == needed(requirements(REQUIREMENTS) | requirements(DEVELOPMENT))


def test_this_environment_has_the_required_versions() -> None:
    for name, requirement in (requirements(REQUIREMENTS) | requirements(DEVELOPMENT)).items():
        installed = Version(importlib.metadata.version(name))
        assert installed in requirement.specifier, f"{requirement}, but {installed} is installed"


def test_what_is_installed_agrees_with_itself() -> None:
    """As `pip check`, for what we need: every version satisfies everyone who asks for it."""
    ours = needed(requirements(REQUIREMENTS) | requirements(DEVELOPMENT))
    for name in ours:
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                installed = Version(importlib.metadata.version(requirement.name))
                assert requirement.specifier.contains(installed, prereleases=True), f"{name} needs {requirement}"


def test_requirements_name_every_package_that_the_code_imports() -> None:
    """A Space installs requirements.txt alone: what is imported must not be there only by someone else's need."""
    owners = importlib.metadata.packages_distributions()
    ours = {*MAY_IMPORT, "tests", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    for packages, files in ((tuple(MAY_IMPORT), (REQUIREMENTS,)), (("tests",), (REQUIREMENTS, DEVELOPMENT))):
        named = {name for path in files for name in requirements(path)}
        for path in modules(*packages):
            for module in imported(path):
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top in ours:
                    continue
                distributions = {canonicalize_name(name) for name in owners.get(top, [])}
                assert distributions & named, f"{path.relative_to(ROOT)} imports {top}: name it in {files[-1].name}"


def test_every_locked_package_accepts_the_python_of_debian_12() -> None:
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name = line.split("==")[0]
            needs = importlib.metadata.metadata(name).get("Requires-Python") or ""
            assert SpecifierSet(needs).contains("3.11.2"), f"{name} needs Python {needs}"


@pytest.mark.slow
def test_requirements_alone_install_what_the_app_and_the_training_import(tmp_path: Path) -> None:
    """What a Space does: requirements.txt into an empty environment, with whatever index pip is set to use."""
    venv.create(tmp_path / "space", with_pip=True)
    python = tmp_path / "space" / "bin" / "python"
    quiet = ["-q", "--disable-pip-version-check"]
    if Version(importlib.metadata.version("torch")).local == "cpu":
        # Where this environment has a CPU build, the index that it came from may no longer be named.
        available = subprocess.run(
            [python, "-m", "pip", "download", *quiet, "--no-deps", "-d", tmp_path, "torch==2.13.0+cpu"],
            capture_output=True,
        )
        if available.returncode:
            pytest.skip("only torch's CUDA build can be had here: several GB for what the CPU build shows as well")
    subprocess.run([python, "-m", "pip", "install", *quiet, "-r", REQUIREMENTS], check=True)
    foreign = {
        module.split(".")[0]
        for path in modules(*MAY_IMPORT)
        for module in imported(path)
        if module.split(".")[0] not in MAY_IMPORT
    }
    program = "\n".join(["import importlib", *(f"importlib.import_module({name!r})" for name in sorted(foreign))])
    imported_all = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert imported_all.returncode == 0, imported_all.stderr
    start = [python, "-m", "app", "--help"]
    shown = subprocess.run(start, cwd=ROOT, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True)
    assert shown.returncode == 0 and "usage: python -m app" in shown.stdout, shown.stderr


# Packages and layers


@cache
def modules(*packages: str) -> tuple[Path, ...]:
    """All modules of our packages, by path."""
    return tuple(path for package in packages for path in sorted((ROOT / package).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, anywhere in it, as absolute ones."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: write imports in full"
            yield node.module or ""
        elif isinstance(node, ast.Call) and dotted(node.func) in {"importlib.import_module", "__import__"}:
            yield from (str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a chain of names; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def place(path: Path, node: ast.expr | ast.stmt) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def test_pyproject_lists_every_package_folder() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    tops = {name.split(".")[0] for name in listed}
    assert tops == set(MAY_IMPORT)
    folders = {path.parent for top in tops for path in (ROOT / top).rglob("*.py")}
    assert sorted(listed) == sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)
    for folder in folders:
        assert (folder / "__init__.py").is_file(), folder


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    for path in modules(package):
        for name in imported(path):
            top = name.split(".")[0]
            assert top not in {"tests", "benchmarks"}, f"{path.relative_to(ROOT)} imports {name}"
            if top in MAY_IMPORT and top != package:
                assert top in MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(("library", "homes"), [("gradio", ("app/",)), ("langchain", ("chains/", "index/sources.py"))])
def test_a_framework_stays_where_it_belongs(library: str, homes: tuple[str, ...]) -> None:
    for path in modules(*MAY_IMPORT):
        where = path.relative_to(ROOT).as_posix()
        for name in imported(path):
            assert not name.startswith(library) or where.startswith(homes), f"{where} imports {name}"


def test_only_the_settings_read_the_environment() -> None:
    for path in modules(*MAY_IMPORT):
        if path == ROOT / "desk" / "config.py":
            continue
        allowed: set[ast.expr] = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and dotted(node.func) == "os.environ.setdefault":
                key = node.args[0]
                assert isinstance(key, ast.Constant) and key.value in SWITCHES, place(path, node)
                assert isinstance(node.func, ast.Attribute)
                allowed.add(node.func.value)
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert not {alias.name for alias in node.names} & {"environ", "getenv"}, place(path, node)
            if isinstance(node, ast.Attribute) and dotted(node) in {"os.environ", "os.getenv", "os.environb"}:
                assert node in allowed, f"{place(path, node)} reads the environment: desk/config.py does that"


PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def test_no_module_reads_pickles_or_trusts_code_of_a_model() -> None:
    """A model, an index and a desk are data: nothing in them may run."""
    false = {"allow_pickle", "trust_remote_code", "allow_dangerous_deserialization"}
    for path in modules(*MAY_IMPORT):
        for name in imported(path):
            assert name.split(".")[0] not in PICKLES, f"{path.relative_to(ROOT)} imports {name}"
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            given = {word.arg: word.value for word in node.keywords if word.arg}
            for word in false & set(given):
                value = given[word]
                assert isinstance(value, ast.Constant) and value.value is False, f"{place(path, node)}: {word}"
            if dotted(node.func) == "torch.load":
                value = given.get("weights_only", node.func)
                assert isinstance(value, ast.Constant) and value.value is True, f"{place(path, node)}: weights_only"
            assert not dotted(node.func).endswith((".load_local", ".save_local")), place(path, node)


def test_no_file_in_git_is_larger_than_nine_megabytes() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]
    assert ROOT / "pyproject.toml" in files
    assert [str(path.relative_to(ROOT)) for path in files if path.stat().st_size > 9 * MEGABYTE] == []


# Settings


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every key of a settings file with its default (`...` when it is required), groups before their keys."""
    for name, field in model.model_fields.items():
        yield prefix + name, ... if field.is_required() else field.default
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")


def variables() -> dict[str, str | None]:
    """The environment variables that desk/config.py reads, with the defaults that it gives them."""
    found: dict[str, str | None] = {}
    for node in ast.walk(tree(ROOT / "desk" / "config.py")):
        if isinstance(node, ast.Call) and dotted(node.func) in {"os.environ.get", "os.getenv"}:
            values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            found[str(values[0])] = str(values[1]) if len(values) > 1 else None
    return found


def documented(section: str) -> dict[str, str]:
    """The text below each third-level heading of one section of docs/settings.md."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    sections = {part.split("\n")[0]: part for part in text.split("\n## ")[1:]}
    entries = [part.split("\n", 1) for part in sections[section].split("\n### ")[1:]]
    return {heading.strip(): body.strip() for heading, body in entries}


def test_the_settings_that_are_documented_are_those_of_desk_yaml() -> None:
    assert list(documented("desk.yaml")) == [key for key, _ in keys(DeskFile)]


def test_the_settings_that_are_documented_are_those_of_the_environment() -> None:
    assert sorted(documented("Environment")) == sorted(variables())


@pytest.mark.parametrize(("key", "default"), list(keys(DeskFile)), ids=[key for key, _ in keys(DeskFile)])
def test_a_documented_default_is_the_default(key: str, default: object) -> None:
    opening = documented("desk.yaml")[key].split(". ")[0].removesuffix(".")
    if default is ...:
        assert opening == "Required"
    elif isinstance(default, BaseModel):
        assert opening == "Default: every key at its own default"
    elif default in ((), {}):
        assert opening == "Default: none"
    else:
        assert opening == ("Default: empty" if default == "" else f"Default: `{default}`")


def test_a_documented_default_of_the_environment_is_the_default() -> None:
    entries = documented("Environment")
    for name, default in variables().items():
        opening = entries[name].split(". ")[0]
        assert opening == f"Default: `{default}`" if default else opening.startswith("Default: "), name


def test_the_variables_that_are_documented_are_those_of_the_makefile() -> None:
    declared = re.findall(r"^([A-Z_]+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(documented("Make, Docker and the tests")) == sorted(declared)


def test_the_image_holds_the_code_that_the_app_imports_and_the_desks() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = set(re.findall(r"^COPY (\w+)/ \1/$", dockerfile, re.MULTILINE))
    assert copied == MAY_IMPORT["app"] | {"app", "desks"}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert sent == copied | {"LICENSE", "requirements.txt", "requirements.lock"}
