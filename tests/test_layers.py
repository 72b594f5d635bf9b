"""The layers of ARCHITECTURE.md: imports point down, and `import schedsim` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Layer of each module by the longest matching prefix.
LAYERS = {
    "schedsim": 5,  # the package's own front door
    "schedsim.errors": 1,
    "schedsim.specs": 1,
    "schedsim.request": 1,
    "schedsim.config": 1,
    "schedsim.traces": 1,
    "schedsim.kernels": 0,
    "schedsim.scheduler": 2,
    "schedsim.policies": 2,
    "schedsim.memory": 2,
    "schedsim.predictors": 2,
    "schedsim.output_limit": 2,
    "schedsim.load": 2,
    "schedsim.content": 2,
    "schedsim.costs": 3,
    "schedsim.results": 3,
    "schedsim.backend": 3,
    "schedsim.simulator": 4,
    "schedsim.executor": 4,
    "schedsim.experiments": 5,
    "schedsim.cli": 5,
    "schedsim.testing": 5,
    "schedsim.sweep": 5,
    "schedsim.report": 5,
}

# Packages, beside the standard library and our own, that a layer may use; the others may use any.
ALLOWED = {
    0: {"torch", "triton"},
    1: {"numpy", "pyarrow", "pydantic", "pydantic_core"},
    2: {"numpy"},
    3: {"numpy", "pandas", "pyarrow", "pydantic", "rich"},
}


def layer(module: str) -> int:
    parts = module.split(".")
    while ".".join(parts) not in LAYERS:
        parts.pop()
    return LAYERS[".".join(parts)]


def modules() -> dict[str, Path]:
    found = {}
    for folder, package in (
        ("schedsim", "schedsim"),
        ("traces", "schedsim.traces"),
        ("kernels", "schedsim.kernels"),
        ("executor", "schedsim.executor"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """Modules that a file imports when it runs; `if TYPE_CHECKING:` blocks are left out."""
    names = set()
    stack: list[ast.AST] = [ast.parse(path.read_text())]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        stack.extend(ast.iter_child_nodes(node))
    return names


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_down(module: str) -> None:
    own = layer(module)
    for imported in sorted(imports(modules()[module])):
        top = imported.partition(".")[0]
        if top == "hypothesis" or imported.startswith("schedsim.testing"):
            assert module.startswith("schedsim.testing"), f"{module} imports {imported}"
        if own in ALLOWED and top != "schedsim" and top not in sys.stdlib_module_names:
            assert top in ALLOWED[own], f"{module} (layer {own}) imports {imported}"
        if top != "schedsim" or imported == "schedsim":
            continue
        target = layer(imported)
        assert target <= own, f"{module} (layer {own}) imports {imported} (layer {target})"
        backends = {"schedsim.simulator", "schedsim.executor"}
        for backend in backends:
            others = tuple(backends - {backend})
            if module.startswith(backend):
                assert not imported.startswith(others), f"{module} imports the other backend"


def test_every_module_has_a_layer_of_its_own() -> None:
    loose = [name for name in modules() if layer(name) == 5 and name.count(".") == 1]
    interface = ("cli", "experiments", "report", "sweep", "testing")
    assert set(loose) <= {f"schedsim.{name}" for name in interface}


def test_import_schedsim_is_light() -> None:
    heavy = ("torch", "triton", "altair", "ray", "scipy", "pandas", "hypothesis")
    code = f"import sys, schedsim\nprint([name for name in {heavy!r} if name in sys.modules])\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
