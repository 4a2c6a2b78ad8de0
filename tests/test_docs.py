"""The pages that users read: links lead somewhere, and the example runs."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.parts))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_architecture_names_every_part():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    parts = {path.name for path in (ROOT / "bnn").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not [name for name in parts - {"__main__.py"} if name not in text]


def test_the_reference_is_built_from_the_docstrings(tmp_path):
    reference = load("reference")
    names = reference.modules()
    assert {"bnn", "bnn.training.step", "hwsim.devices.mtj"} <= set(names)
    reference.write(tmp_path, ["bnn.training.step", "bnn.errors"])
    page = (tmp_path / "bnn" / "training" / "step.html").read_text(encoding="utf-8")
    assert "There is no other: the trainer takes it" in page


def test_public_things_have_docstrings():
    documented, missing = 0, []
    for name in load("reference").modules():
        module = importlib.import_module(name)
        for public, thing in vars(module).items():
            if public.startswith("_") or getattr(thing, "__module__", None) != name or not callable(thing):
                continue
            members = [member for key, member in vars(thing).items() if not key.startswith("_") and callable(member)]
            for part in [thing, *(members if inspect.isclass(thing) else [])]:
                if inspect.getdoc(part):
                    documented += 1
                else:
                    missing.append(f"{name}.{public}: {part}")
    assert documented > 500
    assert len(missing) <= 0.05 * documented, missing


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_example_trains():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(example, names)
    gradients = [parameter.grad for parameter in names["model"].parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
