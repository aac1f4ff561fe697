"""The shipped judge on passages that the tests make up, and its parts on numbers."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chains.judge import FEATURES, REMEMBERED, Head, Judge, open_judge, write_judge, write_refusal
from chains.refusal import REFUSAL_FEATURES, RefusalHead, content_tokens, fit_refusal
from index.chunk import sentences
from index.document import ScoredPassage, SearchResult
from tests.fakes import hit

MUSEUM = (
    "The maritime museum stands on the old quay. It was founded by Ada Brandvold, a retired pilot. "
    "Tickets cost nine euros. It closes on Mondays. Dogs are allowed in the courtyard alone."
)


def found(*hits: ScoredPassage) -> SearchResult:
    return SearchResult(tuple(hits), 1.0, {"museum": 1.0})


def best(judge: Judge, question: str, result: SearchResult) -> str:
    judgement = judge.judge(question, result)
    number = int(np.argmax([row.max() for row in judgement.sentences]))
    text = result.hits[number].passage.text
    start, end = sentences(text)[int(judgement.sentences[number].argmax())]
    return text[start:end]


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("Who started the museum?", "It was founded by Ada Brandvold, a retired pilot."),
        ("On which day is the museum shut?", "It closes on Mondays."),
        ("How much do I pay to get in?", "Tickets cost nine euros."),
        ("Can I bring my puppy?", "Dogs are allowed in the courtyard alone."),
    ],
)
def test_a_sentence_is_known_by_what_its_passage_says(judge: Judge, question: str, sentence: str) -> None:
    assert best(judge, question, found(hit(MUSEUM))) == sentence


def test_odds_are_those_of_all_sentences_and_of_none(judge: Judge) -> None:
    result = found(hit(MUSEUM), hit("Other words. More of them.", path="documents/b.md"))
    judgement = judge.judge("Who started the museum?", result)
    assert [len(row) for row in judgement.sentences] == [5, 2]
    assert sum(float(row.sum()) for row in judgement.sentences) + judgement.none == pytest.approx(1, abs=1e-5)
    assert all((row >= 0).all() for row in judgement.sentences)


def test_what_no_sentence_answers_is_likelier_none_than_what_one_does(judge: Judge) -> None:
    asked = judge.judge("Who started the museum?", found(hit(MUSEUM)))
    strange = judge.judge("Which gas do balloons hold?", found(hit(MUSEUM)))
    assert asked.none < 0.3 < strange.none


def test_nothing_found_is_none_for_certain(judge: Judge) -> None:
    judgement = judge.judge("Who?", found())
    assert (judgement.sentences, judgement.none) == ((), 1.0)


def test_a_passage_that_changed_is_read_anew(judge: Judge) -> None:
    before = hit(MUSEUM)
    after = replace(before, passage=replace(before.passage, text=MUSEUM.replace("nine euros", "on Fridays nothing")))
    first = judge.judge("How much do I pay to get in?", found(before))
    again = judge.judge("How much do I pay to get in?", found(after))
    assert not np.allclose(first.sentences[0], again.sentences[0], atol=1e-3)


def test_a_sentence_beyond_what_the_model_reads_can_still_be_judged(judge: Judge) -> None:
    long = " ".join(f"Room {n} has grey walls and a carpet." for n in range(60))
    judgement = judge.judge("Who?", found(hit(long)))
    assert len(judgement.sentences[0]) == 60 and np.isfinite(judgement.sentences[0]).all()


def test_many_threads_get_what_one_gets(judge: Judge) -> None:
    results = [found(hit(f"{MUSEUM} Hall {n} is closed.", path=f"documents/{n}.md")) for n in range(12)]
    alone = [judge.judge("Which hall is closed?", result) for result in results]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda result: judge.judge("Which hall is closed?", result), results * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert np.allclose(one.sentences[0], other.sentences[0], atol=2e-3)
    assert len(results) <= REMEMBERED


def heads() -> tuple[Head, RefusalHead]:
    random = np.random.default_rng(1)
    rows = [random.normal(size=n).astype(np.float32) for n in (384, *[len(FEATURES)] * 3, *[len(REFUSAL_FEATURES)] * 3)]
    return Head(*rows[:4], none=0.5), RefusalHead(*rows[4:], bias=0.25)


def test_weights_that_are_written_are_read_back(tmp_path: Path, state_folder: Path) -> None:
    name = "encoder.layer.0.output.dense"
    factors = {f"{name}.A": np.zeros((1536, 2), np.float32), f"{name}.B": np.zeros((2, 384), np.float32)}
    head, refusal = heads()
    write_judge(factors, head, refusal, tmp_path / "judge.safetensors")
    read = open_judge(state_folder / "models", 1, tmp_path / "judge.safetensors")
    result = found(hit(MUSEUM))
    values = (read.features("Who?", result) - head.mean) / head.deviation @ head.weights
    odds = np.exp(np.append(values, 0.5) - max(values.max(), 0.5))
    judgement = read.judge("Who?", result)
    assert judgement.none == pytest.approx(odds[-1] / odds.sum(), rel=1e-3)
    lacking = read.lacks("Who?", result)
    assert lacking is not None and judgement.unanswered == pytest.approx(refusal.chance(lacking), rel=1e-3)
    write_refusal(replace(refusal, bias=9.0), tmp_path / "judge.safetensors")
    again = open_judge(state_folder / "models", 1, tmp_path / "judge.safetensors").judge("Who?", result)
    assert again.none == pytest.approx(judgement.none, rel=1e-3)
    assert again.unanswered == pytest.approx(replace(refusal, bias=9.0).chance(lacking), rel=1e-3)


def test_what_a_passage_lacks_of_a_question_is_counted_exactly(judge: Judge) -> None:
    result = replace(found(hit(MUSEUM)), term_weights={"ticket": 3.0, "cost": 2.0, "zebra": 5.0})
    values = dict(zip(REFUSAL_FEATURES, judge.lacks("What do zebra tickets cost?", result).tolist(), strict=True))
    assert [values[name] for name in ("terms in sentence", "terms in passage", "terms anywhere")] == [0.5, 0.5, 0.5]
    assert (values["rarest missing"], values["missing"]) == (5.0, 1.0)
    elsewhere = hit("A zebra lives here.", path="documents/b.md")
    both = replace(result, hits=(*result.hits, elsewhere))
    more = dict(zip(REFUSAL_FEATURES, judge.lacks("What do zebra tickets cost?", both).tolist(), strict=True))
    assert (more["terms in passage"], more["terms anywhere"]) == (0.5, 1.0)


def test_a_detail_that_the_passage_has_not_is_likelier_unanswered_than_one_that_it_has(judge: Judge) -> None:
    weights = {"museum": 1.0, "ticket": 2.0, "cost": 2.0, "pilot": 3.0, "harbour": 3.0, "train": 3.0, "monday": 3.0}

    def unanswered(question: str) -> float:
        terms = {term: weight for term, weight in weights.items() if term in question.lower()}
        return judge.judge(question, replace(found(hit(MUSEUM)), term_weights=terms)).unanswered

    assert unanswered("How much do tickets cost?") < unanswered("How much does the train cost?")
    assert unanswered("Who founded the museum?") < unanswered("Who founded the harbour?")


def test_the_refusal_head_is_that_of_sets_that_count_alike() -> None:
    one = np.ones(len(REFUSAL_FEATURES), dtype=np.float32)
    few, many = [(-one, False), (one, True)], [(-one, False)] * 30 + [(one, True)] * 5
    sets = [[*zip(*part, strict=True)] for part in (few, many)]
    head = fit_refusal([list(rows) for rows, _ in sets], [list(refused) for _, refused in sets])
    assert head.chance(one) == pytest.approx(1 - head.chance(-one), abs=1e-2) and head.chance(one) > 0.8


@pytest.mark.parametrize(
    ("question", "content"),
    [("How much is the dock?", [False] * 5 + [True, False, False]), ("Who is it?", [True] * 6)],
)
def test_tokens_of_stop_words_say_nothing_unless_there_are_no_others(question: str, content: list[bool]) -> None:
    starts = np.array([-1, *(word.start() for word in re.finditer(r"\w+|\?", question)), -1])
    assert content_tokens(question, starts).tolist() == content
