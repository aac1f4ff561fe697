"""The page of a trained adapter: every word as written, nothing that runs, wrong answers first, legible anywhere."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page

from adapters.card import card, short_card
from adapters.config import AdapterManifest
from adapters.dataset import Example
from adapters.prompts import Message
from adapters.report import report, write_report
from adapters.report_page import MOST_CHARACTERS, MOST_ROWS, marked, page
from adapters.verdict import Scores, Verdict

HOSTILE = "<script>alert('x')</script><img src=//elsewhere.example/x onerror=alert(1)> & \"quoted\" </article></style>"
# One red pixel.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")


def manifest_of(title: str = "Parking", domain: str = "Cars and bicycles") -> AdapterManifest:
    return AdapterManifest(
        name="parking",
        title=title,
        domain=domain,
        version=3,
        base="switchboard-tiny",
        base_config_hash="a",
        base_weights_hash="b",
        weights_hash="c",
        target_modules=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
        r=4,
        lora_alpha=8,
        dataset_hash="d",
        capabilities=("chat",),
        scores={"training_rows": 20.0, "validation_rows": 4.0, "validation_exact": 0.75},
    )


def verdict_of(
    rows: list[Example], base: list[str], own: list[str], reason: str = "It beats the bare base."
) -> Verdict:
    scores = {
        "base": Scores(len(rows), 0.0, 0.125, 0.25, 40.0),
        "candidate": Scores(len(rows), 0.5, 0.875, 0.75, 1.25),
    }
    return Verdict(True, reason, "exact", scores, tuple(rows), {"base": tuple(base), "candidate": tuple(own)})


def soup_of(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "lxml")


def sides(article: Tag) -> list[str]:
    """What stands under each label, as text."""
    found = []
    for side in article.select(".side"):
        label = side.find("b")
        assert label is not None
        label.extract()
        found.append(side.get_text())
    return found


def test_the_difference_is_marked_and_can_be_read_back() -> None:
    wanted, answer = "Open the cover, and pull it <slowly>.", "Open a cover, and pull <fast> & wait."
    found = marked(wanted, answer)
    assert "Open <del>the </del><ins>a </ins>cover, and pull <del>it &lt;slowly&gt;.</del><ins>&lt;fast" in found
    assert soup_of(re.sub(r"<del>.*?</del>", "", found)).get_text() == answer
    assert soup_of(re.sub(r"<ins>.*?</ins>", "", found)).get_text() == wanted
    assert marked(answer, answer) == "Open a cover, and pull &lt;fast&gt; &amp; wait."
    assert marked("two\n lines", "two lines") == "<del>two\n </del><ins>two </ins>lines", "blanks alone"
    assert marked(wanted, "Call <us>.") == "<ins>Call &lt;us&gt;.</ins>", "another answer is not compared word by word"
    assert len(soup_of(marked("", "x" * 10_000)).get_text()) == MOST_CHARACTERS


def test_wrong_answers_come_first_each_beside_what_was_wanted() -> None:
    rows = [Example(f"question {number}", f"answer {number}") for number in range(4)]
    own = ["answer 0", "other", "answer 2", ""]
    soup = soup_of(page(manifest_of(), verdict_of(rows, ["b"] * 4, own), b""))
    articles = soup.find_all("article")
    assert [article.h3.get_text() for article in articles] == [f"question {number}" for number in (1, 3, 0, 2)]
    assert [side.find("b").get_text() for side in articles[0].select(".side")] == [
        "wanted",
        "bare base: differs",
        "this version: differs",
    ]
    assert sides(articles[1]) == ["answer 3", "b", "(nothing)"]
    assert sides(articles[2])[2] == "answer 0" and not articles[2].select(".side")[2].find(["ins", "del"])
    assert "2 of 4 rows" in soup.get_text()


def test_the_scores_are_those_of_the_markdown_report() -> None:
    verdict = verdict_of([Example("q", "a")], ["b"], ["a"])
    soup = soup_of(page(manifest_of(), verdict, b""))
    rows = [[cell.get_text() for cell in row.find_all("td")] for row in soup.find_all("tr")]
    assert rows[1:] == [
        ["answers exactly right", "0.0%", "50.0%"],
        ["ROUGE-L", "0.125", "0.875"],
        ["terms of the domain that belong there", "25.0%", "75.0%"],
        ["perplexity of the right answers", "40.00", "1.25"],
    ]
    text = report(manifest_of(), verdict, picture=False)
    assert all(f"| {' | '.join(cells)} |" in text for cells in rows[1:])


def test_hostile_words_stay_words_and_nothing_comes_from_outside() -> None:
    row = Example(HOSTILE, HOSTILE, before=(Message("user", HOSTILE), Message("assistant", HOSTILE)))
    text = page(manifest_of(HOSTILE, HOSTILE), verdict_of([row], [HOSTILE + "x"], [HOSTILE], HOSTILE), PIXEL)
    soup = soup_of(text)
    assert not soup.find_all(["script", "link", "iframe", "object", "embed", "a", "form", "svg"])
    (image,) = soup.find_all("img")
    assert image["src"] == f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
    attributes = {name for tag in soup.find_all(True) for name in tag.attrs}
    assert attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "src", "alt"}
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert (
        isinstance(policy, Tag) and policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    (article,) = soup.find_all("article")
    # What it lacks, and what it has instead.
    changed = f"{HOSTILE}{HOSTILE.rpartition(' ')[2]}x"
    assert article.h3.get_text() == HOSTILE * 3 and sides(article) == [HOSTILE, changed, HOSTILE]
    assert soup.h1.get_text() == f"{HOSTILE}, version 3" and HOSTILE in soup.strong.parent.get_text()


def test_only_the_first_rows_are_shown_and_the_rest_is_counted() -> None:
    rows = [Example(f"question {number}", "a") for number in range(MOST_ROWS + 3)]
    text = page(manifest_of(), verdict_of(rows, ["b"] * len(rows), ["a"] * len(rows)), b"")
    assert len(soup_of(text).find_all("article")) == MOST_ROWS and "3 more rows are not shown" in text
    assert "<img" not in text and "Loss" not in text


def test_page_report_and_card_are_written_beside_the_weights(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_bytes(PIXEL)
    verdict = verdict_of([Example("q", "a")], ["b"], ["a"])
    write_report(tmp_path, manifest_of(), verdict)
    assert (tmp_path / "report.html").read_text() == page(manifest_of(), verdict, PIXEL)
    assert "](curves.png)" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "README.md").read_text() == card(manifest_of(), verdict.scores["candidate"])


def test_an_adapter_without_a_card_gets_one_from_its_manifest() -> None:
    text = short_card(manifest_of(HOSTILE))
    assert "| rows | 20 to train on, 4 held out |" in text and "| held-out rows | 75.0% exactly right |" in text
    assert r"\<script\>alert" in text and "| made |" not in text
    assert "| held-out rows | not measured |" in short_card(manifest_of().model_copy(update={"scores": {}}))


def test_no_value_of_a_foreign_manifest_is_markup_in_its_card() -> None:
    hostile = "8 |\n\n<img src=https://elsewhere.example/x.png> ` <script>"
    hashes = dict.fromkeys(("dataset_hash", "weights_hash", "base_weights_hash"), hostile)
    changes = {**hashes, "settings": {"r": hostile, hostile: [hostile]}, "target_modules": (hostile,)}
    text = short_card(manifest_of().model_copy(update=changes))
    assert text.count("elsewhere") == 7
    assert not re.search(r"(?<!\\)<", text), "every < has its backslash"
    assert not re.search(r"8 (?<!\\)\|", text) and "\n<" not in text.replace("\\", "")


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of rgb(...)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(shown: Page, text: str, ground: str) -> float:
    """Of the text of one selector on the ground of another."""
    read = "([selector, name]) => getComputedStyle(document.querySelector(selector))[name]"
    levels = sorted(luminance(shown.evaluate(read, pair)) for pair in ([text, "color"], [ground, "backgroundColor"]))
    return (levels[1] + 0.05) / (levels[0] + 0.05)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_legible_on_a_telephone_by_day_and_by_night(browser: Browser, tmp_path: Path, scheme: str) -> None:
    rows = [Example(HOSTILE + "w" * 200, "Open the cover."), Example("short", "Yes.")]
    verdict = replace(verdict_of(rows, ["Open a cover!", "No."], ["Close the cover.", "Yes."]), reason="r" * 300)
    path = tmp_path / "report.html"
    path.write_text(page(manifest_of(), verdict, PIXEL))
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        shown = context.new_page()
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("dialog", lambda dialog: pytest.fail(dialog.message))
        shown.goto(path.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert shown.evaluate("document.querySelector('img').naturalWidth") == 1
        sizes = shown.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1], "the page is wider than the screen"
        # 4.5 is what WCAG 2 asks of text.
        for text, ground in (("body", "body"), ("h3", "article"), ("ins", "ins"), ("del", "del")):
            assert contrast(shown, text, ground) >= 4.5, (text, scheme)
        for text in ("b.good", "b.bad", ".side b", ".soft", "strong.good"):
            assert min(contrast(shown, text, ground) for ground in ("article", "body")) >= 4.5, (text, scheme)
        night = luminance(shown.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1
        assert night == (scheme == "dark")
    finally:
        context.close()
