"""What an installation holds: declared requirements, pinned versions, extras that can be imported."""

import ast
import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PINNED_EXTRAS = ("tasks", "text", "scores", "judge", "beam", "test")
# Beam and sentencepiece are imported in one process: each loads fine without the other's protobuf.
IMPORTS = {
    "tasks": ("seqio", "sentencepiece", "tensorflow_text", "tensorflow_datasets", "tensorflow"),
    "text": ("sentencepiece", "tokenizers"),
    "scores": ("sacrebleu", "rouge_score"),
    "judge": ("openai",),
    "beam": ("apache_beam", "seqio", "sentencepiece"),
    "test": ("pytest", "xdist", "hypothesis"),
    "gpu": ("jax_cuda12_plugin",),
    "tpu": ("libtpu",),
    "plan": ("libtpu",),
    "parity": ("torch", "transformers", "peft"),
    "browser": ("playwright",),
}
HEAVY = ("jax", "flax", "orbax", "tensorflow", "seqio", "torch", "scipy", "matplotlib", "grain")
# What an import name belongs to, where no installed package says so or another one answers first.
DISTRIBUTIONS = {
    "tensorflow": "tensorflow-text",
    "jaxlib": "jax",
    "PIL": "matplotlib",
}


def declared(name: str):
    """The literal that setup.py assigns to `name`."""
    for node in ast.parse((ROOT / "setup.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py assigns no {name}")


def pins() -> dict[str, Version]:
    """constraints.txt: version by distribution name."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][^\s;]*)", line).groups()
            found[canonicalize_name(name)] = Version(version)
    return found


def is_installed(requirement: str) -> bool:
    """Whether the distribution, and what its bracketed extra asks for, is installed."""
    needed = Requirement(requirement)
    try:
        asked = metadata.requires(needed.name) or []
    except metadata.PackageNotFoundError:
        return False
    for extra in needed.extras:
        ours = [Requirement(line) for line in asked if "extra" in line]
        ours = [one for one in ours if one.marker.evaluate({"extra": extra})]
        if not all(is_installed(one.name) for one in ours):
            return False
    return True


def run_python(code: str) -> str:
    """Standard output of `code` in a fresh interpreter of this environment."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("extra", sorted(declared("EXTRAS")))
def test_extra_imports(extra, request):
    required = request.config.getoption("--require_extras").split(",")
    if extra not in required and not all(map(is_installed, declared("EXTRAS")[extra])):
        pytest.skip(f"extra {extra!r} is not installed")
    run_python("".join(f"import {name}\n" for name in IMPORTS[extra]))


def test_every_extra_has_an_import_test():
    assert set(IMPORTS) == set(declared("EXTRAS"))


def test_core_imports_without_tensorflow():
    loaded = run_python(
        "import sys, jax, flax.linen, optax, orbax.checkpoint, jaxopt, gin, grain, scipy.optimize\n"
        "import tensorboardX, jinja2, matplotlib, rich\n"
        "print('tensorflow' in sys.modules)"
    )
    assert loaded.split() == ["False"]


@pytest.mark.parametrize("section", ["core", *PINNED_EXTRAS])
def test_constraints_pin_every_requirement(section):
    pinned = pins()
    for line in declared("CORE") if section == "core" else declared("EXTRAS")[section]:
        needed = Requirement(line)
        version = pinned.get(canonicalize_name(needed.name))
        assert version is not None, f"constraints.txt does not pin {needed.name}"
        assert version in needed.specifier, f"constraints.txt pins {needed.name}=={version}, not {line}"
        assert {part.operator for part in needed.specifier} >= {">="}, f"{line} has no tested lower bound"


def test_pinned_sentencepiece_fits_pinned_protobuf():
    """sentencepiece 0.2.3 is built for protobuf 7 and fails to import on 6, which Beam asks for."""
    pinned = pins()
    assert pinned["protobuf"] >= Version("7") or pinned["sentencepiece"] < Version("0.2.3")


def test_environment_holds_the_pinned_versions(request):
    required = [name for name in request.config.getoption("--require_extras").split(",") if name]
    if not required:
        pytest.skip("an environment that `make` did not install may hold other versions")
    pinned = pins()
    todo, seen = [(line, "") for line in declared("CORE")], set()
    todo += [(line, "") for extra in required if extra in PINNED_EXTRAS for line in declared("EXTRAS")[extra]]
    while todo:
        needed, wanted = Requirement(todo[0][0]), todo.pop(0)[1]
        name = canonicalize_name(needed.name)
        if name in seen or (needed.marker and not needed.marker.evaluate({"extra": wanted})):
            continue
        seen.add(name)
        assert name in pinned, f"{name} is installed but constraints.txt does not pin it"
        assert Version(metadata.version(name)) == pinned[name], f"{name}: constraints.txt says {pinned[name]}"
        for extra in ("", *needed.extras):
            todo += [(line, extra) for line in metadata.requires(name) or []]
    assert len(seen) > 40


def imported_modules(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"scaling_jax"}


# Extras whose libraries a room, or one of its files, may import.
USES = {
    "tasks": ("tasks", "beam", "scores"),
    "evaluation": ("scores", "judge"),
    "data/pieces.py": ("text",),
}


def test_every_import_is_a_declared_requirement():
    known = metadata.packages_distributions()
    core = {canonicalize_name(Requirement(line).name) for line in declared("CORE")}
    extras = {
        name: {canonicalize_name(Requirement(line).name) for line in lines}
        for name, lines in declared("EXTRAS").items()
    }
    for path in sorted((ROOT / "scaling_jax").rglob("*.py")):
        place = path.relative_to(ROOT / "scaling_jax").as_posix()
        may_use = core.union(
            *(extras[extra] for start, names in USES.items() if place.startswith(start) for extra in names)
        )
        # For those who have T5X, which is on no registry; and BLEURT, neither.
        may_use |= (
            {"t5x"} if path.name == "t5x_tuning.py" else {"bleurt"} if path.name == "bleurt.py" else set()
        )
        for name in imported_modules(path):
            owners = {DISTRIBUTIONS[name]} if name in DISTRIBUTIONS else set(known.get(name, [name]))
            owners = {canonicalize_name(owner) for owner in owners}
            assert owners & may_use, f"{path.relative_to(ROOT)} imports {name}, which setup.py does not name"


def test_help_imports_nothing_heavy():
    """The time of `scaling-jax --help` is the time of its imports."""
    loaded = json.loads(
        run_python(
            "import json, sys\nfrom scaling_jax.cli import main\n"
            "text = main.parser().format_help()\nassert 'VERB' in text\n"
            "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
        )
    )
    assert not set(loaded) & set(HEAVY)


def test_console_script():
    """`scaling-jax` is installed beside the interpreter and answers."""
    script = shutil.which("scaling-jax", path=str(Path(sys.executable).parent))
    if script is None:
        try:
            metadata.version("scaling-jax")
        except metadata.PackageNotFoundError:
            pytest.skip("the project is not installed here, only on the path")
    assert script is not None, "the project is installed without its command"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "scaling-jax" in done.stdout, done.stderr


def test_wheel_ships_gin_files_and_templates(tmp_path):
    """What the checkout has beside its code is in the wheel, where the installed package looks for it."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    hidden = shutil.ignore_patterns("__pycache__")
    for name in ("scaling_jax", "gin_configs"):
        shutil.copytree(ROOT / name, source / name, ignore=hidden)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import setuptools.build_meta as backend, sys; print(backend.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("gin_configs", "scaling_jax/gin_configs"), ("scaling_jax", "scaling_jax")):
        for path in (source / folder).rglob("*"):
            if path.is_file():
                assert f"{inside}/{path.relative_to(source / folder).as_posix()}" in shipped
    assert any(name.endswith("licenses/LICENSE") for name in shipped)
