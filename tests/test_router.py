"""The router on small hand-made utterances with a hash embedder: what decides, and who wins."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chains.combine import fit_scaled, judge_unseen, level_for, spread_evenly
from chains.errors import TurnError
from chains.first_stage import RouterInput
from chains.router import GoldenRoute, Router
from chains.turn import BASE_MODEL, Route, RouteOption
from chains.utterances import Label, Utterances, cached_vectors
from desk.settings import RoutingSettings
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


def router(rows: dict[Label, list[str]] = ROWS, settings: RoutingSettings | None = None) -> Router:
    known = utterances(rows)
    return Router(known, EMBED(known.texts), {"triage": "Ticket triage"}, settings)


def evidence_router() -> Router:
    fitted = router()
    fitted.fit_evidence(golden())
    return fitted


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


def test_every_way_to_answer_has_a_probability() -> None:
    for fitted in (router(), evidence_router()):
        decision = fitted.decide(given("screen of a ticket", STRONG))
        assert len(decision.options) == len(ROWS)
        assert sum(chance for _, chance in decision.options) == pytest.approx(1.0)
        assert [chance for _, chance in decision.options] == sorted((c for _, c in decision.options), reverse=True)
        for route in Route:
            own = sum(chance for option, chance in decision.options if option.route is route)
            assert own == pytest.approx(decision.probabilities[route])


def test_the_second_stage_is_the_logistic_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    chance = np.random.default_rng(0)
    rows, targets = chance.normal(size=(60, 4)) * [1, 5, 0.1, 2] + 3, np.repeat([0, 1, 2], 20)
    scaler = StandardScaler().fit(rows)
    peer = LogisticRegression(C=0.7, max_iter=2000).fit(scaler.transform(rows), targets)
    fitted = fit_scaled(rows, targets, 0.7)
    assert np.allclose(fitted(rows), peer.predict_proba(scaler.transform(rows)), atol=1e-4)
    assert np.allclose(fitted(rows[3]), fitted(rows)[3])


def test_a_row_is_judged_by_models_that_never_saw_it() -> None:
    """One class is a single row repeated: whoever saw the odd one out would know it."""
    rows = np.concatenate([np.zeros((10, 1)), np.ones((10, 1)), np.full((1, 1), 0.0)])
    targets = np.repeat([0, 1, 1], [10, 10, 1])
    assert judge_unseen(rows, targets, 100.0)[-1, 1] < 0.2
    part = spread_evenly(targets, np.random.default_rng(0))
    assert all(np.bincount(part[targets == kind], minlength=5).min() >= 2 for kind in (0, 1))


@pytest.mark.parametrize(("recall", "level"), [(0.5, 0.4), (0.75, 0.3), (0.76, 0.2), (1.0, 0.2), (0.2, 0.5)])
def test_the_level_is_the_highest_that_keeps_the_recall_and_half_at_most(recall: float, level: float) -> None:
    assert level_for(recall, [0.3, 0.9, 0.2, 0.4]) == level


def test_the_choice_of_the_sender_wins_and_says_so() -> None:
    forced = router().decide(given("screen flickers", route=Route.RETRIEVAL))
    assert (forced.route, forced.forced) == (Route.RETRIEVAL, True)
    assert forced.reason.startswith("You chose Documents")
    assert router().decide(given("screen flickers", route=Route.BOTH)).workflow == "triage"
    assert router().decide(given("price of a dock", route=Route.ADAPTER)).adapter in {"devices", "terms"}
    assert router().decide(given("price of a dock", adapter="terms")).adapter == "terms"
    assert router().decide(given("price of a dock", adapter=BASE_MODEL)).route is Route.ADAPTER
    assert router().decide(given("meaning", STRONG, Route.RETRIEVAL, "terms")).route is Route.RETRIEVAL


def test_a_chosen_workflow_is_the_one_that_answers_whatever_is_nearest() -> None:
    rows = {**ROWS, Label(Route.BOTH, "intake"): ["file this request", "request for intake", "new request", "intake"]}
    known = utterances(rows)
    two = Router(known, EMBED(known.texts), {"triage": "Ticket triage", "intake": "Request intake"})
    assert two.decide(given("please sort ticket", route=Route.BOTH)).workflow == "triage"
    for route in (None, Route.BOTH):
        decision = two.decide(replace(given("please sort ticket", route=route), workflow="intake"))
        assert decision.option == RouteOption(Route.BOTH, None, "intake")
        assert (decision.reason, decision.forced) == ("You chose Request intake", True)
        assert decision.instead == RouteOption(Route.BOTH, None, "triage")
    documents = two.decide(replace(given("please sort ticket", route=Route.RETRIEVAL), workflow="intake"))
    assert (documents.route, documents.workflow) == (Route.RETRIEVAL, None)
    with pytest.raises(TurnError, match="There is no workflow 'payroll' here: choose one of these: intake, triage"):
        two.decide(replace(given("please sort ticket"), workflow="payroll"))


def test_what_the_router_would_have_decided_is_told_beside_a_choice_and_only_there() -> None:
    fitted = router()
    own = fitted.decide(given("my screen flickers"))
    assert own.instead is None and own.option == RouteOption(Route.ADAPTER, "devices")
    assert fitted.decide(given("my screen flickers", route=Route.RETRIEVAL)).instead == own.option


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
        rows += [GoldenRoute(given(text, found), label.route) for text in texts]
    return rows


def test_what_looks_out_of_scope_is_rescued_by_a_clear_passage() -> None:
    fitted = router()
    fitted.fit_evidence(golden())
    assert fitted.decide(given("a poem about soup", WEAK)).route is Route.NONE
    assert fitted.decide(given("a poem about soup", STRONG)).route is Route.RETRIEVAL


def test_more_of_what_is_out_of_scope_is_declined_where_a_desk_states_a_higher_recall() -> None:
    """The same turns, some of them out of scope in words that the documents use."""
    turns = [
        *golden(),
        *(GoldenRoute(given(text, STRONG), Route.NONE) for text in ("price of a football", "leave a poem")),
        *(row for row in golden() if row.route is not Route.NONE),
    ]
    declined = {}
    for recall in (0.5, 0.99):
        fitted = router(settings=RoutingSettings(out_of_scope_recall=recall))
        fitted.fit_evidence(turns)
        unseen = [fitted.decide_unseen(place, turn.given) for place, turn in enumerate(turns)]
        declined[recall] = sum(one is not None and one.route is Route.NONE for one in unseen)
    assert declined[0.99] > declined[0.5] > 0


def test_two_ways_within_the_margin_make_a_turn_ambiguous() -> None:
    text = "price of a keyboard, meaning of a screen"
    clear, doubtful = (router(settings=RoutingSettings(ambiguity_margin=margin)) for margin in (0.0, 1.0))
    assert clear.decide(given(text, STRONG)).alternative is None
    decision = doubtful.decide(given(text, STRONG))
    first = RouteOption(decision.route, decision.adapter, decision.workflow)
    ways = [option for option, _ in decision.options if option.route is not Route.NONE and option != first]
    assert decision.alternative == ways[0]
    middle = dict(decision.options)[first] - dict(decision.options)[ways[0]]
    for margin, ambiguous in ((middle + 0.01, True), (middle - 0.01, False)):
        at = router(settings=RoutingSettings(ambiguity_margin=margin)).decide(given(text, STRONG))
        assert (at.alternative is not None) is ambiguous


def test_declining_is_never_offered_as_a_way_to_answer() -> None:
    fitted = router(settings=RoutingSettings(ambiguity_margin=1.0))
    declined = fitted.decide(given("a poem about soup"))
    assert declined.route is Route.NONE and declined.alternative is None
    for text in ("price of soup", "screen of a poem"):
        other = fitted.decide(given(text, STRONG)).alternative
        assert other is None or other.route is not Route.NONE


def stand_in(rows: dict[Label, list[str]]) -> Callable[[int], RouterInput]:
    """What the library says of an utterance: documents answer those of retrieval alone."""
    known = utterances(rows)

    def found(place: int) -> RouterInput:
        return given(known.texts[place], STRONG if known.labels[place].route is Route.RETRIEVAL else WEAK)

    return found


def test_a_route_that_no_golden_turn_knows_is_not_ruled_out() -> None:
    known = [turn for turn in golden() * 2 if turn.route is not Route.BOTH]
    without, fitted = router(), router()
    without.fit_evidence(known)
    fitted.fit_evidence(known, stand_in(ROWS))
    assert without.decide(given("please sort ticket")).probabilities[Route.BOTH] == 0.0
    assert fitted.decide(given("please sort ticket")).workflow == "triage"
    assert fitted.decide(given("my screen flickers")).adapter == "devices"


def test_a_desk_without_golden_turns_learns_from_its_utterances_what_the_library_means() -> None:
    """Words alone say out of scope; that documents answer all examples of retrieval, and none else, outweighs them."""
    rows = {label: [f"{text} {number}" for text in texts for number in range(5)] for label, texts in ROWS.items()}
    fitted = router(rows)
    fitted.fit_evidence([], stand_in(rows))
    plain = fitted.decide(given("days of soup", WEAK)).probabilities[Route.RETRIEVAL]
    assert fitted.decide(given("days of soup", STRONG)).probabilities[Route.RETRIEVAL] > plain + 0.2
    assert fitted.decide(given("screen flickers", WEAK)).adapter == "devices"


@pytest.mark.parametrize("route", list(Route))
def test_the_reason_says_what_decided_in_words(route: Route) -> None:
    fitted = evidence_router()
    texts = {
        Route.RETRIEVAL: ("price of a dock", STRONG, "1 strong passage"),
        Route.ADAPTER: ("my screen flickers", WEAK, "devices ("),
        Route.BOTH: ("please sort ticket", WEAK, "Ticket triage ("),
        Route.NONE: ("a poem about soup", WEAK, "outside what this desk covers ("),
    }
    text, found, words = texts[route]
    decision = fitted.decide(given(text, found))
    assert decision.route is route and decision.reason.startswith(words)


def test_the_fit_is_kept_by_what_it_was_fitted_on(tmp_path: Path) -> None:
    known = utterances()
    first = Router(known, EMBED(known.texts), {}, folder=tmp_path)
    (path,) = tmp_path.glob("*")
    written = path.stat().st_mtime_ns
    again = Router(known, EMBED(known.texts), {}, folder=tmp_path)
    assert path.stat().st_mtime_ns == written
    asked = given("keyboard dead")
    assert first.decide(asked) == again.decide(asked)
    assert first.decide(asked) == Router(known, EMBED(known.texts), {}).decide(asked)
    more = Utterances((*known.texts, "dead dock"), (*known.labels, Label(Route.ADAPTER, "devices")))
    Router(more, EMBED(more.texts), {}, folder=tmp_path)
    assert [one != path for one in tmp_path.glob("*")] == [True]


def test_a_desk_with_one_utterance_of_each_kind_has_a_router() -> None:
    tiny = router({Label(Route.RETRIEVAL): ["where is it"], Label(Route.NONE): ["tell me a joke"]})
    tiny.fit_evidence([], lambda place: given("where is it", STRONG) if place == 0 else given("tell me a joke"))
    assert tiny.decide(given("where is it", STRONG)).route is Route.RETRIEVAL
    assert tiny.decide(given("a joke")).route is Route.NONE


def test_utterance_vectors_are_embedded_once_per_text_and_model(tmp_path: Path) -> None:
    folder = tmp_path
    calls: list[list[str]] = []

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        calls.append(list(texts))
        return EMBED(texts)

    first = cached_vectors(["a b", "c"], embed, "hash", folder)
    again = cached_vectors(["a b", "c"], embed, "hash", folder)
    assert np.array_equal(first, again) and calls == [["a b", "c"]]
    changed = cached_vectors(["d", "a b", "d"], embed, "hash", folder)
    assert calls[1:] == [["d"]] and np.array_equal(changed, EMBED(["d", "a b", "d"]))
    cached_vectors(["a b", "d"], embed, "other", folder)
    assert calls[2:] == [["a b", "d"]]
    for torn in folder.glob("*"):
        torn.write_bytes(torn.read_bytes()[:100])
    assert np.array_equal(cached_vectors(["a b", "d"], embed, "other", folder), EMBED(["a b", "d"]))
    assert len(list(folder.glob("*"))) == 1
