"""The report: one file, nothing from outside, no text taken for markup."""
from html.parser import HTMLParser

import pandas as pd
import pytest

from alignx.errors import InputError
from alignx.evaluate.report import write_report

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
NASTY = '"><script>x()</script><img src=//evil.example/a onerror=x()>{{ 7*7 }}'
VOID = {"meta", "img", "br", "input", "link"}


class Page(HTMLParser):
    "Collects tags and checks that they nest."

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.seen, self.ids = [], [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.seen += data


def write(tmp_path, **parts):
    return write_report(tmp_path / "out" / "report.html", parts.pop("title", "Report"), **parts).read_text(encoding="utf-8")


def everything(text):
    frame = pd.DataFrame({text: [text, "b"], "value": [0.5, None]})
    return dict(title=text, lead=text, facts={text: text}, steps=[(text, text)], figures=[(text, text, SVG)], tables=[(text, text, frame)])


def test_all_text_is_escaped_wherever_it_stands(tmp_path):
    page = Page(write(tmp_path, **everything(NASTY)))
    assert "script" not in [tag for tag, _ in page.tags]
    assert [attributes["src"][:26] for tag, attributes in page.tags if tag == "img"] == ["data:image/svg+xml;base64,"]
    assert page.seen.count(NASTY) >= 9 and "49" not in page.seen


def test_well_formed_accessible_and_without_outside_addresses(tmp_path):
    text = write(tmp_path, **everything("Plain"), explorer="<div id='mine'><b>live</b></div>")
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "") and "<div id='mine'><b>live</b></div>" in text
    assert len(page.ids) == len(set(page.ids))
    targets = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert targets and targets <= set(page.ids)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert ("html", {"lang": "en"}) in page.tags and "prefers-color-scheme: dark" in text


def test_only_what_is_given_appears(tmp_path):
    page = Page(write(tmp_path))
    assert {"section", "nav", "dl", "figure", "table"}.isdisjoint(tag for tag, _ in page.tags)


def test_numbers_and_missing_values(tmp_path):
    frame = pd.DataFrame({"a": [0.12345, None, 1e-5, 123456.7], "b": [1, 2, 3, 4], "c": [["en", "de"], "x", "", None]})
    seen = Page(write(tmp_path, tables=[("t", "", frame)])).seen
    assert all(value in seen for value in ("0.123", "–", "1.00e-05", "123,457", "en, de")) and "nan" not in seen.lower()


def test_a_long_table_is_folded(tmp_path):
    tags = lambda count: [tag for tag, _ in Page(write(tmp_path, tables=[("t", "", pd.DataFrame({"a": range(count)}))])).tags]
    assert "details" in tags(31) and "details" not in tags(30)


@pytest.mark.parametrize("svg", ["figure.svg", "", "<img>", "<script>svg</script><svg/>"])
def test_a_figure_must_be_svg(tmp_path, svg):
    with pytest.raises(InputError, match="'Curve'"):
        write(tmp_path, figures=[("Curve", "", svg)])


def test_svg_with_a_prolog_is_fine(tmp_path):
    assert write(tmp_path, figures=[("Curve", "", f'<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "a"\n "b">\n{SVG}')])


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    write(tmp_path, title="old")
    monkeypatch.setattr("alignx.evaluate.report.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        write(tmp_path, title="new")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.html"]
    assert "old" in (tmp_path / "out" / "report.html").read_text()


def test_the_same_report_has_the_same_bytes(tmp_path):
    assert write(tmp_path, **everything("x")) == write(tmp_path, **everything("x"))
