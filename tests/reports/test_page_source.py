"""What kind of page it is: one that stands alone, and in which hostile text is only text."""

import html
import re
from html.parser import HTMLParser

from tests.reports.pages import change, figure, report, svgs, text

HOSTILE = "<script>alert('$x_{1}$ & \"y\"')<b>"


class Elements(HTMLParser):
    """Fails where an element is not closed in its turn; keeps names and attributes."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_needs_nothing_besides_itself(run, tmp_path):
    page = report(run, run, "-o", tmp_path / "page.html")
    elements = Elements(page).seen
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in elements}
    for outside in ("http", "//", "src=", "@import", "<!DOCTYPE svg"):
        assert outside not in page, outside
    references = [v for _, attributes in elements for name, v in attributes.items() if name.endswith("href")]
    references += re.findall(r"url\(([^)]*)\)", page)
    assert references
    targets = {attributes["id"] for _, attributes in elements if "id" in attributes}
    assert all(reference[0] == "#" and reference[1:] in targets for reference in references)


def test_figures_take_their_colours_from_the_page(run):
    for svg in svgs(report(run)):
        assert "currentColor" in svg
        assert not re.search(r"(fill|stroke): #", svg)


def test_same_run_gives_the_same_page(run):
    assert report(run) == report(run)


def test_hostile_text_is_only_text(run, tmp_path):
    hostile = run.rename(tmp_path / HOSTILE.replace("/", ""))
    change(hostile / "config.json", **{HOSTILE: HOSTILE, "arguments": {HOSTILE: [HOSTILE]}, "recipe": HOSTILE})
    change(
        hostile / "summary.json",
        dataset=HOSTILE,
        price_table=HOSTILE,
        uncounted=[HOSTILE],
        weight_state={HOSTILE: {HOSTILE: HOSTILE}},
        device={HOSTILE: HOSTILE, "energy": [{"name": HOSTILE, "joule": HOSTILE, "table": HOSTILE}]},
        **{HOSTILE: "\ud800"},
    )
    for words in ((hostile,), (hostile, hostile, "-o", tmp_path / "page.html")):
        page = report(*words)
        assert "<script" not in page
        assert "<b>" not in page
        assert text(page).count(HOSTILE) > 5
        Elements(page)


def test_hostile_layer_name_is_only_text(run, tmp_path):
    recipe = tmp_path / "named.py"
    recipe.write_text(f"""
import torch
from torch import nn
from bnn.data import digits
from bnn.training import Run

def recipe():
    model = nn.Sequential(nn.Flatten())
    model.add_module({HOSTILE.replace(".", "")!r}, nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Run(model=model, data=digits(), optimizer=optimizer, epochs=1, batch_size=1, seed=0)
""")
    change(run / "config.json", recipe=str(recipe), arguments={})
    page = report(run, "--recipe", recipe)
    assert "<script" not in page
    names = map(html.unescape, re.findall(r"<text[^>]*>([^<]*)</text>", figure(page, "Trained weights")))
    assert f"{HOSTILE} Linear" in names
    assert "wider weights" in page
