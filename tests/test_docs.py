"""The pages that users read: links lead somewhere, and the example runs."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_architecture_names_every_part():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    parts = {path.name for path in (ROOT / "bnn").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not [name for name in parts - {"__main__.py"} if name not in text]


def test_readme_example_trains():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(example, names)
    gradients = [parameter.grad for parameter in names["model"].parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
