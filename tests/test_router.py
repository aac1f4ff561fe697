"""The router on small hand-made utterances with a hash embedder: what decides, and who wins."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chains.errors import TurnError
from chains.router import GoldenRoute, Label, Router, RouterInput, Utterances, cached_vectors
from chains.turn import BASE_MODEL, Route
from index.document import SearchResult
from tests.fakes import HashEmbedder, hit

EMBED = HashEmbedder().embed
ROWS = {
    Label(Route.RETRIEVAL): [
        "what is the price of a dock",
        "how many days of leave",
        "price of a headset",
        "leave days",
    ],
    Label(Route.ADAPTER, "devices"): ["screen flickers", "keyboard dead", "screen black again", "keyboard types wrong"],
    Label(Route.ADAPTER, "terms"): [
        "meaning of incident",
        "define problem record",
        "meaning of change",
        "define backlog",
    ],
    Label(Route.BOTH, "triage"): ["triage this ticket", "sort this ticket", "please triage ticket", "ticket to sort"],
    Label(Route.NONE): ["recipe for soup", "football result", "write a poem", "soup and football"],
}
STRONG = SearchResult((hit("The price is 5 EUR.", similarity=0.8),), 1.0)
WEAK = SearchResult((hit("Something else.", similarity=0.05),), 0.1)


def utterances(rows: dict[Label, list[str]] = ROWS) -> Utterances:
    return Utterances(
        tuple(text for texts in rows.values() for text in texts),
        tuple(label for label, texts in rows.items() for _ in texts),
    )


def router(rows: dict[Label, list[str]] = ROWS) -> Router:
    known = utterances(rows)
    return Router(known, EMBED(known.texts), {"triage": "Ticket triage"})


def given(text: str, found: SearchResult = WEAK, route: Route | None = None, adapter: str | None = None) -> RouterInput:
    return RouterInput(EMBED([text])[0], found, route=route, adapter=adapter)


@pytest.mark.parametrize(
    ("text", "route", "name"),
    [
        ("price of a dock", Route.RETRIEVAL, None),
        ("my screen flickers", Route.ADAPTER, "devices"),
        ("meaning of backlog", Route.ADAPTER, "terms"),
        ("please sort ticket", Route.BOTH, "triage"),
        ("a poem about soup", Route.NONE, None),
    ],
)
def test_a_message_goes_where_its_like_goes(text: str, route: Route, name: str | None) -> None:
    decision = router().decide(given(text))
    assert (decision.route, decision.adapter or decision.workflow) == (route, name)
    assert sum(decision.probabilities.values()) == pytest.approx(1.0)
    assert decision.route is max(decision.probabilities, key=lambda name: decision.probabilities[name])


def test_its_probabilities_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    known = utterances()
    names = [f"{label.route.value}/{label.name}" for label in known.labels]
    peer = LogisticRegression(C=10.0, class_weight="balanced", max_iter=2000).fit(EMBED(known.texts), names)
    vector = EMBED(["screen of a ticket"])
    expected: dict[str, float] = {}
    for name, p in zip(peer.classes_, peer.predict_proba(vector)[0], strict=True):
        route = name.split("/")[0]
        expected[route] = expected.get(route, 0.0) + p
    decision = router().decide(RouterInput(vector[0], WEAK))
    assert {route.value: p for route, p in decision.probabilities.items()} == pytest.approx(expected, abs=1e-6)


def test_the_choice_of_the_sender_wins_and_says_so() -> None:
    forced = router().decide(given("screen flickers", route=Route.RETRIEVAL))
    assert (forced.route, forced.forced) == (Route.RETRIEVAL, True)
    assert forced.reason.startswith("You chose Documents")
    assert router().decide(given("screen flickers", route=Route.BOTH)).workflow == "triage"
    assert router().decide(given("price of a dock", route=Route.ADAPTER)).adapter in {"devices", "terms"}
    assert router().decide(given("price of a dock", adapter="terms")).adapter == "terms"
    assert router().decide(given("price of a dock", adapter=BASE_MODEL)).route is Route.ADAPTER
    assert router().decide(given("meaning", STRONG, Route.RETRIEVAL, "terms")).route is Route.RETRIEVAL


def test_a_route_that_the_desk_lacks_is_refused_in_a_sentence() -> None:
    bare = router({label: texts for label, texts in ROWS.items() if label.route in {Route.RETRIEVAL, Route.NONE}})
    with pytest.raises(TurnError, match="no workflow"):
        bare.decide(given("sort this", route=Route.BOTH))
    with pytest.raises(TurnError, match="No adapter"):
        bare.decide(given("sort this", route=Route.ADAPTER))


def golden() -> list[GoldenRoute]:
    rows = []
    for label, texts in ROWS.items():
        found = STRONG if label.route is Route.RETRIEVAL else WEAK
        rows += [GoldenRoute(given(text, found), label.route, label.route is Route.NONE) for text in texts]
    return rows


def test_what_looks_out_of_scope_is_rescued_by_a_clear_passage() -> None:
    fitted = router()
    fitted.fit_evidence(golden())
    assert fitted.decide(given("a poem about soup", WEAK)).route is Route.NONE
    assert fitted.decide(given("a poem about soup", STRONG)).route is Route.RETRIEVAL


def test_what_documents_answer_is_judged_by_a_rule_fitted_on_development_turns() -> None:
    """At one and the same evidence, below what is quoted without a fitted rule, the question's subject decides."""
    faint = SearchResult((hit("The price is 5 EUR.", similarity=0.1),), 0.3)
    asked = [
        "price of a dock",
        "leave days left",
        "price of a screen",
        "days of leave",
        "price of a mouse",
        "leave price",
    ]
    strays = ["soup recipe", "a football poem", "recipe of soup", "a poem", "football soup", "write football"]
    unfitted, fitted = router(), router()
    fitted.fit_evidence(
        [
            *(GoldenRoute(given(text, faint), Route.RETRIEVAL, False) for text in asked),
            *(GoldenRoute(given(text, faint), Route.NONE, True) for text in strays),
            *(row for row in golden() if row.route in (Route.ADAPTER, Route.BOTH)),
        ]
    )
    assert fitted.answerable(given("price of a cable", faint)) and not unfitted.answerable(given("price", faint))
    assert not fitted.answerable(given("poem on soup", faint))


def test_without_enough_development_turns_the_evidence_decides() -> None:
    fitted = router()
    fitted.fit_evidence(golden())
    assert fitted.answerable(given("price of a dock", STRONG))
    assert not fitted.answerable(given("price of a dock", WEAK))
    assert not fitted.answerable(given("price of a dock", SearchResult((), 0.0)))


def test_utterance_vectors_are_embedded_once_per_text_and_model(tmp_path: Path) -> None:
    folder = tmp_path
    calls: list[int] = []

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        calls.append(1)
        return EMBED(texts)

    first = cached_vectors(["a b", "c"], embed, "hash", folder)
    again = cached_vectors(["a b", "c"], embed, "hash", folder)
    assert np.array_equal(first, again) and len(calls) == 1
    cached_vectors(["a b", "d"], embed, "hash", folder)
    cached_vectors(["a b", "d"], embed, "other", folder)
    assert len(calls) == 3
    assert len(list(folder.glob("*.npy"))) == 1
