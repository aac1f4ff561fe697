"""What the router learns from feedback: only what enough people agree on, only when told, and it can be undone."""

import datetime
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.assembly import Switchboard
from app.records import Feedback, Record, open_records
from chains.assistant import Assistant
from chains.first_stage import RouterInput
from chains.fitting import fit_router, grounds
from chains.golden import GoldenTurn, read_golden
from chains.learned import FILE, Learned, read_learned, write_learned
from chains.turn import BASE_MODEL, Event, Route, Routed, RouteOption, Turn
from chains.utterances import Label
from desk.errors import DeskError
from desk.settings import CollectionSettings
from evaluation.__main__ import main
from evaluation.refit import (
    MOST_PER_LABEL,
    Changed,
    Refit,
    Vote,
    Weighed,
    apply_refit,
    goes_right,
    label_of,
    lines,
    try_refit,
    votes,
    weigh,
)
from index.document import DESK_COLLECTION, SearchResult
from index.library import Library
from tests.fakes import HashEmbedder

DOCUMENTS, SUPPORT = RouteOption(Route.RETRIEVAL), RouteOption(Route.ADAPTER, "it-support")
READ, FIX = Label(Route.RETRIEVAL), Label(Route.ADAPTER, "it-support")
EMBED = HashEmbedder().embed_queries


def recorded(*feedback: Feedback) -> list[Record]:
    return [Record(place, datetime.datetime.now(datetime.UTC), one) for place, one in enumerate(feedback)]


def thumb(user: str, value: str, question: str = "a b c") -> Feedback:
    return Feedback(user, "thumb", value, question, DOCUMENTS)


def override(user: str, question: str = "a b c", chosen: RouteOption = SUPPORT) -> Feedback:
    return Feedback(user, "override", "again", question, DOCUMENTS, chosen)


def preference(user: str, chosen: RouteOption, question: str = "a b c") -> Feedback:
    return Feedback(user, "preference", "second", question, DOCUMENTS, chosen)


@pytest.mark.parametrize(
    ("feedback", "vote"),
    [
        ([thumb("u", "up")], Vote("u", "a b c", READ)),
        ([thumb("u", "down")], Vote("u", "a b c", None, against=READ)),
        ([thumb("u", "down"), thumb("u", "up", "A  b c")], Vote("u", "A  b c", READ)),
        ([override("u")], Vote("u", "a b c", FIX)),
        ([override("u"), thumb("u", "up")], Vote("u", "a b c", FIX)),
        ([replace(override("u"), value="control")], Vote("u", "a b c", FIX)),
        ([override("u"), preference("u", DOCUMENTS)], Vote("u", "a b c", READ)),
        ([preference("u", DOCUMENTS), override("u")], Vote("u", "a b c", READ)),
        (
            [override("u", chosen=RouteOption(Route.BOTH, None, "triage"))],
            Vote("u", "a b c", Label(Route.BOTH, "triage")),
        ),
        ([override("u", chosen=RouteOption(Route.ADAPTER, BASE_MODEL))], None),
        ([override("u", chosen=RouteOption(Route.BOTH))], None),
    ],
)
def test_a_person_has_one_vote_on_a_question(feedback: list[Feedback], vote: Vote | None) -> None:
    assert votes(recorded(*feedback)) == ([vote] if vote else [])


def test_what_enough_people_agree_on_is_learned_across_phrasings() -> None:
    cast = [Vote("u", "my blue screen flickers", FIX), Vote("v", "blue screen flickers my", FIX)]
    weighed = weigh(cast, EMBED, least=2)
    assert [(one.text, one.label, people) for one, people in weighed.learned] == [
        ("my blue screen flickers", FIX, 2),
        ("blue screen flickers my", FIX, 2),
    ]
    assert weigh(cast, EMBED, least=3).learned == ()
    assert weigh([cast[0], replace(cast[1], question="salary paid day when")], EMBED, least=2).learned == ()


def test_one_person_with_many_phrasings_is_one_person() -> None:
    cast = [Vote("u", "my blue screen flickers", FIX), Vote("u", "blue screen flickers my", FIX)]
    weighed = weigh(cast, EMBED, least=2)
    assert weighed.learned == () and dict(weighed.dropped)["my blue screen flickers"] == "1 of the 2 people it takes"


@pytest.mark.parametrize("other", [Vote("x", "a b c", READ), Vote("x", "c b a", None, against=FIX)])
def test_what_is_contradicted_is_dropped(other: Vote) -> None:
    cast = [Vote(user, "a b c", FIX) for user in "uvw"]
    assert len(weigh(cast, EMBED, least=2).learned) == 1
    weighed = weigh([*cast, other], EMBED, least=1)
    assert weighed.learned == () and dict(weighed.dropped)["a b c"] == "contradicted"


def test_a_thumb_down_on_another_way_contradicts_nothing() -> None:
    cast = [Vote("u", "a b c", FIX), Vote("v", "a b c", FIX), Vote("w", "a b c", None, against=READ)]
    assert [one.label for one, _ in weigh(cast, EMBED, least=2).learned] == [FIX]


def test_a_label_learns_so_many_utterances_those_of_most_people_first() -> None:
    questions = [f"w{place} x{place} y{place} z{place}" for place in range(MOST_PER_LABEL + 5)]
    cast = [Vote("u", question, FIX) for question in questions] + [Vote("v", questions[-1], FIX)]
    weighed = weigh(cast, EMBED, least=1)
    assert len(weighed.learned) == MOST_PER_LABEL and weighed.learned[0][0].text == questions[-1]
    assert len(weighed.dropped) == 5


def test_what_was_learned_is_read_as_it_was_written(tmp_path: Path) -> None:
    learned = (Learned("Line\nbreak “quoted”", FIX), Learned("x", Label(Route.NONE)))
    assert read_learned(tmp_path / "state" / FILE) == ()
    write_learned(tmp_path / "state" / FILE, learned)
    assert read_learned(tmp_path / "state" / FILE) == learned
    assert [path.name for path in (tmp_path / "state").iterdir()] == [FILE]
    (tmp_path / FILE).write_text('{"text": "x", "route": "retrieval"}\n{"text": "x"}\n')
    with pytest.raises(DeskError, match=r"line 2.*--forget"):
        read_learned(tmp_path / FILE)


def test_the_report_says_of_each_changed_turn_whether_it_is_better() -> None:
    golden = GoldenTurn(id="dev-1", question="Why?", route=Route.RETRIEVAL)
    refit = Refit(
        3, Weighed(((Learned("q", FIX), 2),), (("r", "contradicted"),)), 4, 2, 3, (Changed(golden, FIX, READ),)
    )
    text = "\n".join(lines(refit))
    assert "50.0% (2/4) now, 75.0% (3/4) then; 1 change" in text
    assert "dev-1 adapter (it-support) -> retrieval: better  Why?" in text
    assert "contradicted" in text


QUESTION = "How often is a laptop replaced?"
PHRASINGS = {QUESTION, "How often is my laptop replaced?", "How often is the laptop replaced?"}


@pytest.fixture
def own_board(
    board: Switchboard, state_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Switchboard]:
    """The sample desk with records of its own, and every eighth of its development turns."""
    records = open_records("", tmp_path / "records.db")
    golden = board.desk.chains.golden_dev.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "dev.jsonl").write_text("".join(golden[::8]), encoding="utf-8")
    # A state of its own: the board that other tests use would soon learn what is applied here.
    state = tmp_path / board.desk.chains.state.relative_to(state_folder)
    shutil.copytree(board.desk.chains.state, state)
    monkeypatch.setenv("SWITCHBOARD_HOME", str(tmp_path))
    chains = replace(board.desk.chains, golden_dev=tmp_path / "dev.jsonl", state=state)
    yield replace(board, records=records, desk=replace(board.desk, chains=chains))
    records.close()


def test_nothing_changes_until_it_is_applied_and_all_of_it_can_be_undone(own_board: Switchboard) -> None:
    """A question to the documents is learned for an adapter, and forgotten."""
    board, file = own_board, own_board.desk.chains.state / FILE
    for user in "uv":
        for phrasing in PHRASINGS:
            board.records.keep(preference(user, SUPPORT, phrasing))
    refit = try_refit(board, least=2)
    assert {one.text for one, _ in refit.weighed.learned} == PHRASINGS
    gains = [goes_right(one.golden, one.before) - goes_right(one.golden, one.after) for one in refit.changed]
    assert refit.turns == len(read_golden(board.desk.chains.golden_dev))
    assert refit.right_before - refit.right_after == sum(gains)
    assert not file.exists()
    before = chance_of_an_adapter(board)
    apply_refit(board, refit)
    assert {one.text for one in read_learned(file)} == PHRASINGS
    assert chance_of_an_adapter(board) > before
    assert main(["refit", "--forget"]) == 0
    assert not file.exists()


def chance_of_an_adapter(board: Switchboard) -> float:
    """For QUESTION, by a router fitted now."""
    on = grounds(board.desk.chains, board.engine)
    router = fit_router(board.desk.chains, board.library, board.embedder, on)
    assistant = Assistant(board.desk.chains, board.library, board.embedder, board.engine, router, board.assistant.judge)
    first = next(iter(assistant.answer(Turn(QUESTION))))
    assert isinstance(first, Routed)
    return first.decision.probabilities[Route.ADAPTER]


def test_a_label_that_the_desk_no_longer_has_is_left_out(own_board: Switchboard) -> None:
    gone = (Learned("my flux capacitor hums", Label(Route.ADAPTER, "gone")),)
    on = replace(grounds(own_board.desk.chains, own_board.engine), learned=gone)
    router = fit_router(own_board.desk.chains, own_board.library, own_board.embedder, on)
    (vector,) = own_board.embedder.embed_queries([gone[0].text])
    ways = {option.adapter for option, _ in router.decide(RouterInput(vector, SearchResult((), 0.0))).options}
    assert "it-support" in ways and "gone" not in ways


class Listening(Assistant):
    """The assistant, which remembers the collections that it was given."""

    given: frozenset[str] = frozenset()

    def answer(self, turn: Turn) -> Iterator[Event]:
        self.given = turn.collections
        return super().answer(turn)


def test_turns_are_tried_on_all_that_everybody_may_read(board: Switchboard, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    rooms = CollectionSettings("rooms", "documents/rooms", frozenset())
    pay = CollectionSettings("pay", "documents/pay", frozenset({"hr"}))
    index = replace(board.desk.index, documents=tmp_path / "documents", state=tmp_path / "state")
    library = Library.open(replace(index, collections=(rooms, pay)), board.embedder)
    assistant = Listening(
        board.desk.chains, library, board.embedder, board.engine, board.assistant.router, board.assistant.judge
    )
    label_of(assistant, GoldenTurn(id="a", question=QUESTION, route=Route.RETRIEVAL))
    assert assistant.given == {DESK_COLLECTION, "rooms"}
    library.close()
