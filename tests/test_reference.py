"""What is generated from the code is that of the code, and says of each verb, format and public name what it is."""

import re
import runpy

import pytest
from readme import ROOT

import mmtune
from mmtune.cli import VERB_NAMES
from mmtune.data.formats import FORMATS

DOCS = ROOT / "docs"
PAGES = [("generate_reference.py", "verbs.md"), ("generate_reference.py", "formats.md")]


@pytest.fixture(scope="module", params=PAGES, ids=[name for _, name in PAGES])
def page(request):
    script, name = request.param
    return script, DOCS / "reference" / name, runpy.run_path(str(DOCS / script))["PAGES"][name]()


def test_a_generated_page_is_current(page):
    script, path, text = page
    assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date. Run: python docs/{script}"


def test_the_page_of_the_library_is_current():
    text = runpy.run_path(str(DOCS / "generate_library.py"))["render"]()
    path = DOCS / "reference" / "library.md"
    assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date. Run: python docs/generate_library.py"
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^###? |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sections.keys() == mmtune.MODULE_OF.keys()
    assert all(re.search(r"^```\n\n\S", section, re.MULTILINE) for section in sections.values())


def test_every_verb_and_every_format_has_a_section():
    verbs, formats = ((DOCS / "reference" / name).read_text(encoding="utf-8") for _, name in PAGES)
    assert all(f"\n## mmtune {verb}\n" in verbs for verb in VERB_NAMES)
    assert re.findall(r"^## (\w+)$", formats, re.MULTILINE) == list(FORMATS)
