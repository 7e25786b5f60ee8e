"""What is built and installed is what it should be."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import airflow_provider_quickbi
from dev import release_check

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FACTS = tomllib.loads((ROOT / "release.toml").read_text(encoding="utf-8"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
IN_THE_WHEEL = re.compile(r"airflow_provider_quickbi/.*\.py|airflow_provider_quickbi/py\.typed|[^/]+\.dist-info/.*")


def hatch_build() -> ModuleType:
    """Return the build hook, which is no part of a package."""
    pytest.importorskip("hatchling", reason="hatchling is in the development extra only")
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    if find_spec("build") is None or find_spec("hatchling") is None:
        pytest.skip("build and hatchling are in the development extra only")
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_the_wheel_holds_the_package_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = wheel.namelist()
    assert [name for name in names if not IN_THE_WHEEL.fullmatch(name) or "__pycache__" in name] == []
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "airflow_provider_quickbi").rglob("*.py")}
    assert package | {"airflow_provider_quickbi/py.typed"} <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_sdist_holds_what_is_documented_and_no_tests(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "docs/README.md"} <= names
    assert {"README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md", "release.toml", "hatch_build.py"} <= names
    assert "example_dags/quickbi_send_report.py" in names
    assert [name for name in names if name.startswith(("tests", ".venv")) or "cache" in name] == []


def test_the_metadata_say_what_airflow_and_people_look_for(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        files = {
            name.rpartition("/")[2]: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info" in name
        }
    assert f"Version: {airflow_provider_quickbi.__version__}" in files["METADATA"]
    assert "License-Expression: Apache-2.0" in files["METADATA"]
    assert "Requires-Python: >=3.11" in files["METADATA"]
    assert "provider_info = airflow_provider_quickbi.get_provider_info:get_provider_info" in files["entry_points.txt"]


def test_no_link_of_the_published_readme_is_relative(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata_text = wheel.read(name).decode()
    assert "Description-Content-Type: text/markdown" in metadata_text
    _, _, readme = metadata_text.partition("\n\n")
    links = LINK.findall(readme)
    assert [link for link in links if "://" not in link] == []
    assert len(links) >= 2
    assert "Getting started: from an installed Airflow" in readme or FACTS["source_url"] in readme


def test_links_become_absolute_once_the_address_is_known() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    published = hatch_build().absolute_links(readme, "https://host.example/owner/project/", "/blob/main/")
    assert [link for link in LINK.findall(published) if "://" not in link] == []
    assert "(https://host.example/owner/project/blob/main/docs/which-run.md)" in published
    assert len(LINK.findall(published)) == len(LINK.findall(readme))


def test_without_an_address_links_become_plain_text() -> None:
    text = "See [the docs](docs/README.md), [Airflow](https://airflow.apache.org) and [below](#below)."
    published = hatch_build().absolute_links(text, "", "/blob/main/")
    assert published == "See the docs, [Airflow](https://airflow.apache.org) and [below](#below)."


def test_what_is_missing_before_a_release_is_said(tmp_path: Path) -> None:
    (tmp_path / "airflow_provider_quickbi").mkdir()
    (tmp_path / "airflow_provider_quickbi" / "__init__.py").write_text('__version__ = "1.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.0.0\n")
    (tmp_path / "release.toml").write_text('source_url = ""\nauthor_name = "Somebody"\n')
    assert release_check.missing(tmp_path) == [
        "release.toml: source_url is empty",
        "CHANGELOG.md: starts with 1.0.0, but the version is 1.1.0",
    ]


def test_facts_that_are_not_known_stand_in_one_place() -> None:
    """Neither an address nor a contact of this project is written anywhere else."""
    assert not {"authors", "maintainers", "urls"} & set(PROJECT)
    for page in ("SECURITY.md", "CODE_OF_CONDUCT.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert "release.toml" in text
        assert not re.search(r"\S+@\S+\.\w+", text)


def test_the_version_stands_in_one_place_and_heads_the_changelog() -> None:
    version = airflow_provider_quickbi.__version__
    assert "version" in PROJECT["dynamic"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == version


def test_every_runtime_dependency_is_named_with_its_licence() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]+?) \|", page, re.MULTILINE))
    needed = {re.split(r"[<>=!~\[ ]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert set(documented) == needed
    for package, licence in documented.items():
        about = metadata.metadata(package)
        stated = " ".join(
            [text for name in ("License-Expression", "License", "Classifier") for text in about.get_all(name) or []]
        )
        name, _, _ = licence.partition("-")
        assert name.lower() in stated.lower(), (package, stated[:200])
        assert name in ("Apache", "BSD")


@pytest.mark.parametrize("constraints", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.stem)
def test_constraints_name_packages_and_versions_only(constraints: Path) -> None:
    lines = constraints.read_text(encoding="utf-8").splitlines()
    wrong = [
        line for line in lines if line and not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.!+-]+", line)
    ]
    assert wrong == []
    assert not [line for line in lines if "://" in line]
