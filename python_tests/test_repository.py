"""The files that contributors and servers read agree with each other: pins, versions, sessions, forms."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vreid_ext

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "pyproject.toml"
HOOKS = ROOT / ".pre-commit-config.yaml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))

pytestmark = pytest.mark.skipif(not HOOKS.exists(), reason="needs a clone of the repository")


def groups() -> dict[str, list[str]]:
    return tomllib.loads(PROJECT.read_text())["dependency-groups"]


def sessions() -> dict[str, ast.FunctionDef]:
    """The sessions of the noxfile, read without nox."""
    functions = [
        node
        for node in ast.parse((ROOT / "noxfile.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    ]
    return {
        each.name: each
        for each in functions
        if "nox.session" in "".join(map(ast.unparse, each.decorator_list))
    }


def test_tools_are_pinned_to_one_version_each():
    pins = [pin for group in ("lint", "release", "cuda") for pin in groups()[group]]
    assert [pin for pin in pins if not re.fullmatch(r"[\w-]+==[\d.]+", pin)] == []


def test_hooks_have_the_pins_of_the_lint_session():
    (local,) = yaml.safe_load(HOOKS.read_text())["repos"]
    used = {pin for hook in local["hooks"] for pin in hook.get("additional_dependencies", [])}
    assert used == {pin for pin in groups()["lint"] if not pin.startswith("mypy==")}


def test_workflows_call_sessions_that_exist():
    assert WORKFLOWS
    called = set()
    for workflow in WORKFLOWS:
        for job in yaml.safe_load(workflow.read_text())["jobs"].values():
            for step in job["steps"]:
                if "run" not in step:
                    continue
                command = re.fullmatch(r"pipx run nox -s (.+)", step["run"])
                assert command, f"{workflow.name}: {step['run']}"
                names = re.findall(r"(?:^| )\"?([a-z]+)", command[1])
                called |= set(names)
    # `docs` builds the API reference.
    assert called - {"docs"} <= set(sessions())
    assert {"lint", "versions", "wheel", "wheels", "bare", "sdist", "hub", "docs"} <= called


def test_every_session_says_in_one_line_what_it_does():
    for name, session in sessions().items():
        first = (ast.get_docstring(session) or "").partition("\n")[0]
        assert first.endswith((".", ":", ",")) or len(first) > 40, name


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_forms_have_what_the_server_requires(form):
    content = yaml.safe_load(form.read_text())
    if form.name == "config.yml":
        return
    assert {"name", "description", "body"} <= set(content)
    fields = [each for each in content["body"] if each["type"] != "markdown"]
    assert len({each["id"] for each in fields}) == len(fields)
    assert all(each["attributes"]["label"] for each in fields)


def test_the_citation_is_true():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == vreid_ext.__version__
    assert citation["license"] == tomllib.loads(PROJECT.read_text())["project"]["license"]
    pages = " ".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for paper in citation["references"]:
        assert paper["authors"][0]["family-names"] in pages
        assert str(paper["year"]) in pages


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, re.M)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", each) for each in versions[1:])
    kinds = set(re.findall(r"^### (.*)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_source_archive_has_what_the_build_and_the_tests_need():
    manifest = (ROOT / "MANIFEST.in").read_text()
    for name in ("CODE_OF_CONDUCT.md", "CHANGELOG.md", "CONTRIBUTING.md", "noxfile.py", "release"):
        assert name in manifest


def test_hub_package_has_only_relative_imports(tmp_path):
    """Its modules import themselves, torch, Triton and the standard library."""
    command = [sys.executable, str(ROOT / "release" / "hub.py"), "--out", str(tmp_path / "hub")]
    subprocess.run(command, check=True, capture_output=True)
    allowed = sys.stdlib_module_names | {"torch", "triton"}
    for backend in ("cuda", "cpu"):
        variant = tmp_path / "hub" / "build" / f"torch-{backend}"
        metadata = json.loads((variant / "metadata.json").read_text())
        assert metadata["id"].isidentifier()
        assert metadata["backend"] == {"type": backend}
        modules = {str(path.relative_to(variant)): path for path in variant.rglob("*.py")}
        assert set(metadata["digest"]["files"]) == set(modules)
        for name, path in modules.items():
            for node in ast.walk(ast.parse(path.read_text())):
                absolute = [each.name for each in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    absolute = [node.module]
                roots = {each.partition(".")[0] for each in absolute}
                assert roots <= allowed | ({"numpy"} if name == "_checks.py" else set()), name


@pytest.mark.slow
def test_hub_package_is_loaded_by_the_library_of_the_hub(tmp_path):
    pytest.importorskip("kernels", reason="needs the dependency group `hub`")
    pytest.importorskip("triton")
    program, folder = str(ROOT / "release" / "hub.py"), str(tmp_path / "hub")
    subprocess.run([sys.executable, program, "--out", folder], check=True)
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, program, "--check", folder], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": as the reference\n") == 4
