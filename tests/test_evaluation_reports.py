"""The reports: what a page says is what the JSON says, hostile text stays text, and nothing comes from outside."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser

from app.assembly import Switchboard
from chains.extract import MOST_UNANSWERED
from chains.golden import GoldenTurn, read_golden
from chains.turn import Answer, Route, RouteDecision
from evaluation.__main__ import main
from evaluation.answers import QuestionRow, Stated, measure_answers, outcome, refusals
from evaluation.answers_report import at_level
from evaluation.desk import MEASURED, MISSES, Asked, ask_golden, measure_turns, missed
from evaluation.desk_report import TITLES, desk_page, measures_of
from evaluation.floors import Floors
from evaluation.measures import AT_MOST, Measure, of_shares, shown
from evaluation.page import MOST_MISSES, measure_table, misses_of, page_of, table, write_page
from evaluation.plots import Axes, Line, bars, curves, matrix
from evaluation.retrieval import rank_beir
from evaluation.routing import Decided
from evaluation.routing_report import TITLES as ROUTING_TITLES
from evaluation.routing_report import misses as routing_misses
from evaluation.share import Share
from tests.fakes import HashEmbedder
from tests.test_evaluation_retrieval import PEARS, SETTINGS, SHIPS, write_set
from tests.test_evaluation_routing import rows as routing_rows
from tests.test_evaluation_routing import write as write_rows

HOSTILE = "<script>alert('x')</script><img src=//elsewhere.example/x onerror=alert(1)> & \"quoted\" </td></svg>"


def write(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(page: str) -> dict[str, list[str]]:
    """Cells of every table's rows, by the first one."""
    soup = BeautifulSoup(page, "lxml")
    cells = [[cell.get_text() for cell in row.find_all("td")] for row in soup.find_all("tr")]
    return {row[0]: row[1:] for row in cells if row}


def is_inert(page: str) -> bool:
    """Whether nothing in the page runs or comes from outside: no such elements or attributes, and a policy besides."""
    soup = BeautifulSoup(page, "lxml")
    active = soup.find_all(["script", "img", "link", "iframe", "object", "embed", "a", "form"])
    named = [name for tag in soup.find_all(True) for name in tag.attrs]
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    closed = policy is not None and "default-src 'none'" in str(policy["content"])
    return not active and not any(name.startswith("on") or name in ("src", "href") for name in named) and closed


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out.strip().splitlines()[-1]))


def svgs(page: str) -> dict[str, ElementTree.Element]:
    """The pictures of a page as XML, by what they are of."""
    found = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    return {one.attrib["aria-label"]: one for one in found}


def test_the_routing_page_says_what_the_json_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = [{"text": f"{HOSTILE} {number}", "label": "<b>mail</b>"} for number in range(30)]
    files = [
        write_rows(tmp_path / "t.jsonl", routing_rows(0, 25, 40) + strange),
        write_rows(tmp_path / "v.jsonl", routing_rows(1, 5, 0)),
        write_rows(tmp_path / "s.jsonl", [*routing_rows(2, 8, 20), {"text": HOSTILE, "label": "vpn"}]),
    ]
    report = tmp_path / "folder"
    arguments = ["--train", str(files[0]), "--val", str(files[1]), "--test", str(files[2])]
    assert main(["routing", *arguments, "--report", str(report)]) == 0
    told = last_json(capsys)
    page = (report / "routing.html").read_text(encoding="utf-8")
    cells = rows_of(page)
    for name in ("in_scope_accuracy", "accuracy_without_rejection", "oos_recall", "oos_precision", "joint_accuracy"):
        value, counted = cells[ROUTING_TITLES[name]][:2]
        right, total = map(int, counted.split("/"))
        assert value == shown(told[name], "share") == f"{right / total:.1%}"
    for name in ("auroc", "macro_f1", "ece"):
        assert cells[ROUTING_TITLES[name]][0] == f"{told[name]:.3f}"
    assert "69 texts of" in page and str(files[2]) in page
    assert is_inert(page) and HOSTILE in BeautifulSoup(page, "lxml").get_text()


def test_the_retrieval_page_says_what_the_json_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = [
        {"_id": "p", "title": "Pears", "text": PEARS},
        {"_id": "s", "title": HOSTILE, "text": f"{SHIPS} {HOSTILE}"},
        *({"_id": f"n{number}", "title": "", "text": f"Number {number} says nothing."} for number in range(12)),
    ]
    queries = [{"_id": "1", "text": "When are pears picked?"}, {"_id": "2", "text": f"{HOSTILE} ferry"}]
    queries.append({"_id": "3", "text": "what says nothing about the ferry"})
    paths = [str(path) for path in write_set(tmp_path, corpus, queries, ["1\tp\t1", "2\ts\t1", "3\tn11\t1"])]
    report = tmp_path / "page.html"
    arguments = ["--corpus", paths[0], "--queries", paths[1], "--qrels", paths[2]]
    assert main(["retrieval", *arguments, "--report", str(report)]) == 0
    told = last_json(capsys)
    page = report.read_text(encoding="utf-8")
    rows = [[cell.get_text() for cell in row.find_all("td")] for row in BeautifulSoup(page, "lxml").find_all("tr")]
    names = {"BM25 alone": "bm25", "vectors alone": "dense", "hybrid": "hybrid"}
    shown_values = {(names[row[1]], row[0]): row[2] for row in rows if len(row) == 5}
    assert shown_values == {
        (method, figure): f"{value:.3f}" for method, values in told.items() for figure, value in values.items()
    }
    assert is_inert(page) and "3 queries, 14 passages" in page


def test_lost_queries_are_those_that_a_half_ranks_better_than_both_together(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    words = [first + middle + last for first in "bdgklm" for middle in "aou" for last in "bgkp"]

    def said(count: int) -> str:
        return " ".join(random.choice(words, count))

    corpus = [{"_id": f"d{number}", "title": "", "text": said(12)} for number in range(60)]
    queries = [{"_id": f"q{number}", "text": said(3)} for number in range(60)]
    qrels = [f"q{number}\td{random.integers(60)}\t1" for number in range(60)]
    found = rank_beir(*write_set(tmp_path, corpus, queries, qrels), SETTINGS, HashEmbedder())
    texts = {str(row["_id"]): str(row["text"]) for row in corpus}
    lost = 0
    for one in found.ranked:
        (wanted,) = one.query.relevant
        ranks = {name: items.index(wanted) + 1 if wanted in items else None for name, items in one.items.items()}
        place = {name: rank or math.inf for name, rank in ranks.items()}
        assert (one.lost is not None) == (min(place["bm25"], place["dense"]) < place["hybrid"])
        if one.lost:
            lost += 1
            assert dict(one.lost.ranks) == ranks
            assert (one.lost.wanted, one.lost.got) == (texts[wanted], texts[one.items["hybrid"][0]])
    assert 3 <= lost < 60


def question_set(folder: Path) -> tuple[Path, Path]:
    corpus = [
        {"_id": "p", "title": "Pears", "text": PEARS},
        {"_id": "s", "title": "Ferry", "text": f"{SHIPS} {HOSTILE}"},
    ]
    questions = [
        {"question": "When are pears picked?", "answerable": True, "passage_id": "p", "answers": ["September"]},
        {"question": "What does a ticket cost?", "answerable": True, "passage_id": "s", "answers": ["ten crowns"]},
        {"question": f"Who sells {HOSTILE}?", "answerable": False},
        {"question": "How deep is the harbour of Oslo?", "answerable": False},
    ]
    return write(folder / "corpus.jsonl", corpus), write(folder / "questions.jsonl", questions)


def test_the_answers_page_says_what_the_json_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, questions = question_set(tmp_path)
    misses, report = tmp_path / "misses.jsonl", tmp_path / "answers.html"
    arguments = ["answers", "--corpus", str(corpus), "--questions", str(questions)]
    assert main([*arguments, "--misses", str(misses), "--report", str(report)]) == 0
    told = last_json(capsys)
    page = report.read_text(encoding="utf-8")
    cells = rows_of(page)
    assert cells["A gold answer in a quoted sentence"][:2] == ["50.0%", "1/2"] and told["quoted_hit"] == 0.5
    assert cells["Citation recall"][0] == shown(told["citation_recall"], "share")
    assert cells["Refusal F1"][0] == f"{told['refusal_f1']:.3f}"
    assert cells["Sentences quoted, mean"][0] == f"{told['mean_quoted_sentences']:.3f}"
    missed_rows = [json.loads(line) for line in misses.read_text(encoding="utf-8").splitlines()]
    assert "What does a ticket cost?" in [row["question"] for row in missed_rows]
    assert {row["question"] for row in missed_rows} <= cells.keys()
    assert is_inert(page)


def test_the_mark_on_the_curve_of_refusals_is_what_the_run_did(tmp_path: Path) -> None:
    outcomes = measure_answers(*question_set(tmp_path), SETTINGS)
    assert at_level(outcomes, MOST_UNANSWERED) == refusals(outcomes)
    assert at_level(outcomes, -1).refused == 4 and at_level(outcomes, 1).refused == 0
    right = {one.row.question: one.stated.best_right for one in outcomes if one.row.answerable}
    assert right == {"When are pears picked?": True, "What does a ticket cost?": False}


def test_a_level_refuses_what_the_judge_finds_likelier_to_have_no_answer() -> None:
    def row(none: float, answerable: bool) -> Any:
        gold = {"passage_id": "a", "answers": ("b",)} if answerable else {}
        return outcome(QuestionRow(question="?", answerable=answerable, **gold), [], Stated(none, 0.1, False))

    told = at_level([row(0.9, False), row(0.4, False), row(0.6, True), row(0.1, True)], 0.5)
    assert (told.rightly, told.refused, told.wanted, told.total) == (1, 2, 2, 4)


@pytest.fixture(scope="module")
def asked(board: Switchboard) -> list[Asked]:
    """Some development turns, asked for real, and one that is hostile."""
    golden = read_golden(board.desk.chains.golden_dev)
    parts = [turn for turn in golden if turn.parts][:2]
    outside = [turn for turn in golden if turn.route is Route.NONE][:2]
    unanswerable = [turn for turn in golden if turn.route is Route.RETRIEVAL and turn.refused][:3]
    wrong = GoldenTurn(id="x", question=f"Who pays {HOSTILE}?", route=Route.BOTH, workflow="<i>none</i>")
    return ask_golden(board.assistant, [*golden[:4], *parts, *outside, *unanswerable, wrong])


def test_the_desk_page_says_what_was_measured(asked: list[Asked]) -> None:
    report = {"turns": measure_turns(asked)}
    floors = Floors(recorded="today", parts={"turns": {"route": 0.5}}, goals={"turns": {"route": 0.99}})
    measures = measures_of(asked, report, "test", floors)
    page = desk_page("python -m evaluation desk <b>", "test", asked, measures)
    cells = rows_of(page)
    for name, share in report["turns"].items():
        told = share.to_json()
        value = "-" if told["value"] is None else f"{share.right / share.total:.1%}"
        assert cells[TITLES[name]][:2] == [value, f"{told['right']}/{told['total']}"]
    assert cells["Route right"][3:] == ["99.0% missed", "50.0%"]
    assert all(one.floor is None for one in measures_of(asked, report, "dev", floors)["turns"])
    route = next(one for one in missed(asked) if one[0].golden.id == "x")
    assert "route" in route[1] and cells[f"x: Who pays {HOSTILE}?"][0] == "both <i>none</i>"
    assert is_inert(page)


def test_every_kind_of_miss_counts_what_its_measure_counts(asked: list[Asked]) -> None:
    shares = measure_turns(asked)
    kinds = [fault for _, faults in missed(asked) for fault in faults]
    assert kinds
    for name in MISSES:
        share = shares[name]
        assert kinds.count(name) == (share.right if name in AT_MOST else share.total - share.right)


def test_a_turn_that_failed_is_wrong_in_all_that_counts_it() -> None:
    row = {"id": "a", "question": "q", "route": "retrieval", "facts": [["b"]]}
    row["passages"] = [{"document": "a.md", "quote": "b"}]
    failed = Asked(GoldenTurn.model_validate(row), (), None, None)
    ((_, faults),) = missed([failed])
    assert faults == ["route", "passage_in_5", "fact_in_answer"]
    decision = RouteDecision(Route.RETRIEVAL, None, None, {}, "")
    right = replace(failed, routed=decision, from_documents=Answer("q", decision, "A B c", False))
    assert missed([right])[0][1] == ["passage_in_5"]
    assert set(MISSES) <= set(MEASURED) <= set(TITLES)


def test_bars_are_as_long_as_their_shares_and_goals_stand_where_they_belong() -> None:
    measures = of_shares(
        {"route": Share(3, 4), "none": Share(0, 0)}, {"route": HOSTILE}, {"route": 0.9}, {"route": 0.5}
    )
    measures.append(Measure("ece", "Error", 0.2, "number", goal=0.1))
    picture = svgs(bars(measures))["measures"]
    (bar,) = [one for one in picture if one.attrib.get("class") == "bar"]
    left, width = float(bar.attrib["x"]), float(bar.attrib["width"])
    places = {
        one.attrib["class"]: (float(one.attrib["x1"]) - left) / width
        for one in picture
        if one.attrib.get("class", "").startswith("mark") and one.attrib["x1"] == one.attrib["x2"]
    }
    assert places == pytest.approx({"mark goal": 0.9 / 0.75, "mark floor": 0.5 / 0.75}, abs=1e-3)
    (whisker,) = [one for one in picture if one.attrib.get("class") == "whisker"][:1]
    low, high = Share(3, 4).interval
    assert (float(whisker.attrib["x1"]) - left) / width == pytest.approx(low / 0.75, abs=1e-3)
    assert (float(whisker.attrib["x2"]) - left) / width == pytest.approx(high / 0.75, abs=1e-3)
    assert f"{HOSTILE}: 75.0% 3/4" in [title.text for title in picture.iter("title")]


def test_a_curve_passes_where_its_points_lie() -> None:
    axes = Axes("depth", "recall", (1.0, 3.0), (1, 2, 3))
    line = Line("<b>one</b>", [(1, 0.0), (2, 0.5), (3, 1.0)], [(0.0, 0.2), (0.4, 0.6), (0.9, 1.0)])
    picture = svgs(curves("recall", axes, [line, Line("gap", [(1, math.nan), (3, 1.0)])], at=(2.0, "<here>")))["recall"]
    frame = next(one for one in picture if one.attrib.get("class") == "frame")
    x, y, width, height = (float(frame.attrib[name]) for name in ("x", "y", "width", "height"))
    first, second = (
        [tuple(map(float, point.split(","))) for point in one.attrib["points"].split()]
        for one in picture
        if one.attrib.get("class") == "curve"
    )
    assert first == [(x, y + height), (x + width / 2, y + height / 2), (x + width, y)]
    assert second == [(x + width, y)]
    upper = svgs(curves("recall", replace(axes, least=0.5), [line]))["recall"]
    (third,) = [one.attrib["points"].split() for one in upper if one.attrib.get("class") == "curve"]
    assert [float(point.split(",")[1]) for point in third] == [y + 2 * height, y + height, y]
    mark = next(one for one in picture if one.attrib.get("class") == "here")
    assert float(mark.attrib["x1"]) == x + width / 2


def test_a_matrix_has_a_cell_for_each_pair_that_occurs() -> None:
    gold, given = ["<b>mail</b>", "vpn & co", "out", "vpn & co"], ["vpn & co", "vpn & co", "out", "vpn & co"]
    picture = svgs(matrix(gold, given))["confusion matrix"]
    cells = {one.findtext("title"): one.attrib for one in picture if one.attrib.get("class") == "cell"}
    assert set(cells) == {"<b>mail</b> given vpn & co: 1", "out given out: 1", "vpn & co given vpn & co: 2"}
    # Labels stand in alphabetic order: <b>mail</b>, out, vpn & co.
    size = float(cells["out given out: 1"]["width"])
    off = cells["<b>mail</b> given vpn & co: 1"]
    assert float(off["x"]) - float(cells["out given out: 1"]["x"]) == pytest.approx(size) and float(off["y"]) == 0
    many = [f"label {number}" for number in range(60)]
    assert not svgs(matrix(many, many))["confusion matrix"].findall("text")


def test_routing_misses_are_told_apart_by_kind() -> None:
    gold, given = np.array(["a", "a", "none", "b"]), np.array(["b", "none", "a", "b"])
    decided = Decided(("t1", "t2", "t3", "t4"), gold, np.array(["b", "a", "a", "b"]), np.ones(4), np.ones(4), given)
    assert routing_misses(decided) == {
        "Wrong label": [("t1", "a", "b")],
        "In scope but rejected": [("t2", "a", "rejected; likeliest was a")],
        "Out of scope but not rejected": [("t3", "out of scope", "a")],
    }


def test_a_goal_of_what_should_be_small_is_a_ceiling() -> None:
    small = Measure("ece", "Error", 0.04, "number", goal=0.05)
    assert small.reached and not replace(small, value=0.06).reached
    assert not Measure("route", "Route", 0.04, goal=0.05).reached
    assert Measure("route", "Route", math.nan, goal=0.05).reached is None
    assert rows_of(measure_table([small]))["Error"] == ["0.040", "at most 0.050 reached"]


def test_a_page_shows_the_first_misses_and_says_how_many_more_there_are() -> None:
    rows = [(f"q{number}", "a", "b") for number in range(MOST_MISSES + 3)]
    page = misses_of({"Lost": rows, "Nothing": []})
    assert len(rows_of(page)) == MOST_MISSES and "3 more are not shown" in page
    assert f"Lost: {MOST_MISSES + 3}" in page and "Nothing" not in page
    assert misses_of({"Nothing": []}) == table(["a"], []) == "<p>None.</p>"


def test_a_folder_gets_a_page_named_for_the_command(tmp_path: Path) -> None:
    page = page_of(HOSTILE, f"python -m evaluation --desk {HOSTILE}", HOSTILE, [])
    assert write_page(tmp_path / "new" / "folder", "desk", page) == tmp_path / "new" / "folder" / "desk.html"
    assert write_page(tmp_path / "own.htm", "desk", page).read_text(encoding="utf-8") == page
    assert is_inert(page)


@pytest.mark.browser
def test_a_browser_runs_nothing_of_a_page_and_asks_for_nothing_else(browser: Browser, tmp_path: Path) -> None:
    measures = of_shares({"route": Share(3, 4)}, {"route": HOSTILE})
    parts = [measure_table(measures), bars(measures), misses_of({HOSTILE: [(HOSTILE, HOSTILE, HOSTILE)]})]
    path = write_page(tmp_path, "desk", page_of(HOSTILE, HOSTILE, HOSTILE, parts))
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("table.misses td").all_inner_texts() == [HOSTILE] * 3
    assert asked == [path.as_uri()] and said == []
    context.close()
