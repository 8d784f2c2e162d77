"""The site is built without a warning, takes nothing from elsewhere, and holds every page once."""

import re
import subprocess
import sys

import pytest
import yaml
from readme import DOCUMENTS, ROOT

CONFIG = ROOT / "docs" / "theme" / "mkdocs.yml"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", CONFIG, "-d", folder]
    done = subprocess.run(list(map(str, build)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_none_has_markup_that_was_not_read(site):
    for document in DOCUMENTS:
        if document.is_relative_to(ROOT / "docs"):
            page = site / document.relative_to(ROOT / "docs").with_suffix(".html")
            text = re.sub(r"<pre.*?</pre>|<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
            article = re.sub(r"<code.*?</code>", "", text.split("<article")[1].split("</article>")[0], flags=re.DOTALL)
            for paragraph in re.findall(r"<p>(.*?)</p>", article, re.DOTALL):
                assert not re.search(r"\n *(- |\d+\. |\|)|^\||```|\]\(|\*\*", paragraph), f"{document}: {paragraph}"


def test_nothing_is_fetched_from_elsewhere(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]* src=\"?(\S+?)[\">\s]", text)
        fetched += re.findall(r"<link[^>]* href=\"?([^\s\">]+)[^>]* rel=\"?(?:stylesheet|icon|preload)", text)
        assert not [address for address in fetched if re.match(r"(https?:)?//", address)], page
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", styles)


def test_every_page_stands_in_the_navigation_once():
    class Loader(yaml.SafeLoader):
        """Reads the names of Python functions, which the config has, as nothing."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    nav = yaml.load(CONFIG.read_text(encoding="utf-8"), Loader)["nav"]
    found = re.findall(r"[\w./-]+\.md", str(nav))
    pages = {str(path.relative_to(ROOT / "docs")) for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")}
    assert sorted(found) == sorted(pages)
