"""The advice on a desk: small desks made for each outcome, the rule on its own, each signal against a known count."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.dataset import Example
from chains.__main__ import main
from chains.advise import ENOUGH_PAIRS, FACTS, Asker, Signals, changes, decide, facts_in, facts_share, special_words
from chains.advise_words import explain
from chains.golden import GoldenPassage, GoldenTurn
from chains.judge import Judge
from chains.turn import Route
from desk.config import load_desk
from index.document import NO_GROUPS, DocumentInfo
from index.library import open_library

LEAVE = """# Leave policy

Last updated: 3 March 2026

Full-time employees get 27 days of paid leave a year. Part-time employees get leave in proportion to their hours.
Ask for leave of more than 10 days at least 6 weeks ahead. Up to 5 unused days may be taken until 31 March 2027.
"""
SCREEN = "A flickering screen usually means a loose cable or a stale driver. Reseat the cable and update the driver."
NOISE = "A loud fan shows that vents are blocked. Put the laptop on a hard surface and clear the dust from its vents."
PLACES = (
    *(
        "at home",
        "in the hall",
        "today",
        "since Monday",
        "again",
        "all day",
        "in meetings",
        "at my desk",
        "on the train",
    ),
    *(
        "after lunch",
        "in the lab",
        "since the move",
        "in Ghent",
        "every morning",
        "near the window",
        "on battery power",
    ),
    *(
        "when I travel",
        "with the lid closed",
        "in the canteen",
        "during a call",
        "after the update",
        "at the customer's",
    ),
    *("in the warehouse", "late in the evening"),
)


def write_adapter(desk: Path, name: str, pairs: dict[str, str], task: str = "answers") -> None:
    """Pairs of `name`: of each answer, its question at every one of PLACES."""
    folder = desk / "adapters" / name
    folder.mkdir(parents=True)
    workflow = "workflow: triage\n" if task == "fields" else ""
    (folder / "adapter.yaml").write_text(f"title: {name.title()}\ndomain: Things of {name}\ntask: {task}\n{workflow}")
    rows = [
        {"prompt": f"{question} {place}", "completion": answer}
        for answer, question in pairs.items()
        for place in PLACES
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def write_document(desk: Path, text: str) -> None:
    (desk / "documents").mkdir(exist_ok=True)
    (desk / "documents" / "leave.md").write_text(text)


def outcomes(desk: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Of each topic of the desk its outcome, as the command line prints them."""
    capsys.readouterr()
    assert main(["advise", "--desk", str(desk), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["topic"]: row["outcome"] for row in rows}


def test_documents_that_change_and_answer_are_for_retrieval(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_document(desk, LEAVE)
    assert outcomes(desk, capsys) == {"documents: Leave policy": "retrieval"}


def test_stable_advice_that_no_document_holds_is_for_fine_tuning(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_document(desk, LEAVE)
    write_adapter(desk, "support", {SCREEN: "My screen flickers", NOISE: "The fan of my laptop roars"})
    found = outcomes(desk, capsys)
    assert found.pop("documents: Leave policy") == "retrieval"
    assert found and set(found.values()) == {"fine-tuning"}


def test_fields_that_are_filled_beside_documents_are_a_workflow(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_document(desk, LEAVE)
    forms = {
        json.dumps({"category": "people", "priority": "P3"}): "Sort this.\nMy leave balance is wrong",
        json.dumps({"category": "hardware", "priority": "P2"}): "Sort this.\nThe screens of the team flicker",
    }
    write_adapter(desk, "triage", forms, "fields")
    assert outcomes(desk, capsys) == {"Triage": "both", "documents: Leave policy": "retrieval"}


def test_a_stub_and_a_handful_of_pairs_are_not_enough_to_tell(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_document(desk, "# Leave\n\nTo be written.\n")
    folder = desk / "adapters" / "support"
    folder.mkdir(parents=True)
    (folder / "adapter.yaml").write_text("title: Support\ndomain: Faults\n")
    (folder / "train.jsonl").write_text(json.dumps({"prompt": "My screen flickers", "completion": SCREEN}) + "\n")
    found = outcomes(desk, capsys)
    assert len(found) == 2 and set(found.values()) == {"unclear"}


def test_a_desk_without_anything_is_told_what_to_add(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "documents").mkdir()
    assert main(["advise", "--desk", str(desk)]) == 0
    assert "add some first" in capsys.readouterr().out


DOCUMENTS = Signals(documents=2, words=400, changing=2, factual=0.9, library=2)
PAIRS = Signals(pairs=60, questions=50, answers=5, asked=10, library=2)
MIXED = replace(PAIRS, documents=2, words=400, changing=2, factual=0.9)


@pytest.mark.parametrize(
    ("signals", "outcome"),
    [
        (DOCUMENTS, "retrieval"),
        (replace(DOCUMENTS, words=10), "unclear"),
        (replace(DOCUMENTS, changing=0), "retrieval"),
        (replace(DOCUMENTS, changing=0, factual=0.1), "unclear"),
        (replace(DOCUMENTS, changing=0, factual=0.1, turns=4, turns_answered=2), "retrieval"),
        (PAIRS, "fine-tuning"),
        (replace(PAIRS, facts=FACTS + 0.1), "retrieval"),
        (replace(PAIRS, questions=ENOUGH_PAIRS - 1), "unclear"),
        (replace(PAIRS, answers=40), "unclear"),
        (MIXED, "both"),
        (replace(MIXED, answered=8), "retrieval"),
        (replace(PAIRS, fields=True, answers=40), "both"),
        (replace(PAIRS, fields=True, library=0), "fine-tuning"),
        (Signals(), "unclear"),
    ],
)
def test_the_rule_follows_its_levels(signals: Signals, outcome: str) -> None:
    assert decide(signals) == outcome


def test_the_sentence_says_what_speaks_for_and_against() -> None:
    said = explain("retrieval", replace(MIXED, answered=8))
    assert said.startswith("Let the documents answer: its 2 documents are of a kind that changes")
    assert "documents answer 8 of 10 of the pairs' questions" in said
    assert said.index("against it") < said.index("50 clean questions with 10 wordings of each answer")
    lacking = explain("unclear", replace(PAIRS, questions=3))
    assert "no document is about it" in lacking and f"3 clean questions, and training needs {ENOUGH_PAIRS}" in lacking


def test_amounts_dates_names_and_addresses_are_facts_and_plain_advice_is_none() -> None:
    text = "Ask the Harbour team by 31 March 2027, pay 45 EUR, or write to desk@corvane.example."
    assert {"harbour", "2027", "45 eur", "desk@corvane.example"} <= facts_in(text)
    assert facts_in("Reseat the cable. Update the driver and restart.") == frozenset()


def test_the_share_of_facts_counts_each_answer_once() -> None:
    pairs = [Example("a", "It costs 45 EUR."), Example("b", "It costs 45 EUR."), Example("c", "Restart it.")]
    assert facts_share(pairs, frozenset({"45 eur"})) == 0.5
    assert facts_share(pairs, frozenset({"46 eur"})) == 0.0


def test_special_words_recur_are_no_names_and_fall_into_pieces() -> None:
    texts = [
        "the multifunction device at Quillon",
        "a multifunction device of Quillon",
        "multifunction device, Quillon",
    ]
    assert special_words(texts, lambda word: 4 if word in ("multifunction", "quillon") else 1) == ("multifunction",)
    assert special_words(texts[:2], lambda word: 4) == ()


def test_a_document_changes_if_it_says_so_was_replaced_is_a_table_or_came_later() -> None:
    plain = DocumentInfo("1", "documents/a.md", "A", "md", "desk", None, False, 10, 1, None, "2026-01-01T00:00:00Z")
    assert not changes(plain, "2026-01-01T08:00:00Z")
    for changed in (
        replace(plain, updated="2026-01-01"),
        replace(plain, outdated=True),
        replace(plain, format="csv"),
        replace(plain, added_at="2026-02-01T00:00:00Z"),
    ):
        assert changes(changed, "2026-01-01T08:00:00Z")


def test_documents_answer_as_a_pair_does_and_a_turn_out_of_what_it_names(desk: Path, judge: Judge) -> None:
    write_document(desk, LEAVE)
    library = open_library(load_desk(desk).index)
    asker = Asker(library, library.readable(NO_GROUPS), judge, 5)
    question = "How many days of paid leave do full-time employees get?"
    assert asker.says_the_same(Example(question, "Full-time employees get 27 days of paid leave a year."), False)
    assert not asker.says_the_same(Example(question, SCREEN), False)
    assert asker.says_the_same(Example(f"Sort this.\n{question}", '{"team":"people"}'), True)
    assert not asker.says_the_same(Example("Which gas do balloons hold?", "Balloons hold helium."), False)
    turn = GoldenTurn(id="1", question=question, route=Route.RETRIEVAL)
    named = [GoldenPassage(document=f"documents/{name}.md", quote="27 days") for name in ("leave", "other")]
    choices = ((named[0],), (named[1],), ())
    found = [asker.finds(turn.model_copy(update={"passages": passages})) for passages in choices]
    assert found == [True, False, False]
    library.close()
