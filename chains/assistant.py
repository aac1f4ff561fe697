"""One chat turn, top to bottom: split, condense, embed, search, route, generate, cite, verify, finish."""

import logging
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from langchain_core.runnables import RunnableBranch, RunnableGenerator
from numpy.typing import NDArray

from adapters.errors import ModelError
from chains.about import Facts, about, asks_about_the_assistant
from chains.adapter import answer_from_adapter
from chains.citations import Embed
from chains.clarify import label, options, source, take_reply, which_one
from chains.clock import Clock
from chains.condense import Closeness, condense
from chains.context import look_around, vector_of
from chains.engines import AnyEngine, chat_model
from chains.errors import ServerError, TurnError
from chains.first_stage import RouterInput
from chains.judge import Judge, Judgement
from chains.language import foreign_language, notice
from chains.message import cleaned
from chains.parts import Planned, in_parts
from chains.prepared import Draft, Prepared
from chains.prompts import cannot_help
from chains.retrieval import answer_from_documents, say
from chains.router import Router
from chains.split import split
from chains.turn import (
    Answer,
    Event,
    Failed,
    Finished,
    Noted,
    Retrieved,
    Route,
    Routed,
    RouteDecision,
    RouteOption,
    Token,
    Turn,
)
from chains.workflow import LookUp, look_up, run_workflow
from desk.settings import ChainSettings
from index.document import SearchResult
from index.embed import Embedder
from index.errors import LibraryError
from index.library import Library
from index.related import RelatedDocument

log = logging.getLogger("switchboard.turn")
RELATED = 3
RELATED_LEAST = 0.6
"""At most so many documents are named beside an answer, of at least this cosine. By eye, on 24 answers of the
development half: from here on nearly all treat the same matter, below .55 they share little more than a word."""
Vectors = NDArray[np.float32]


class Assistant:
    """Answers turns; safe to call from many threads. Nothing of one turn is kept for another."""

    def __init__(
        self,
        settings: ChainSettings,
        library: Library,
        embedder: Embedder,
        engine: AnyEngine,
        router: Router,
        judge: Judge,
    ) -> None:
        self.settings = settings
        self.library = library
        self.engine = engine
        self.judge = judge
        self.take_router(router)
        self._embed = embedder.embed_queries
        self._titles = {name: workflow.title for name, workflow in settings.workflows.items()}
        self._model = chat_model(engine, settings.answer_s)
        self._generate = RunnableBranch(
            (lambda prepared: prepared.decision.route is Route.RETRIEVAL, _streaming(self._documents)),
            (lambda prepared: prepared.decision.route is Route.ADAPTER, _streaming(self._adapter)),
            (lambda prepared: prepared.decision.route is Route.BOTH, _streaming(self._workflow)),
            _streaming(self._refuse),
        )

    def take_router(self, router: Router) -> None:
        """Routes with it from the next decision on; turns that are being answered go on."""
        self.router, self._decide = router, router.as_runnable()

    def answer(self, turn: Turn) -> Iterator[Event]:
        """The events of one turn, ending with Finished or Failed. Closing the iterator cancels the turn."""
        turn_id = uuid.uuid4().hex[:12]
        try:
            yield from self._answer(turn, turn_id)
        except LibraryError as error:
            # Its sentences are for whoever runs the program: they name files and commands.
            log.warning("turn %s failed: %s", turn_id, error)
            yield Failed(f"The documents cannot be searched just now (turn {turn_id}). Please try again later.")
        except ServerError as error:
            log.warning("turn %s failed: %s", turn_id, error)
            yield Failed(f"The language model does not answer just now (turn {turn_id}). Please try again later.")
        except (TurnError, ModelError) as error:
            log.warning("turn %s failed: %s", turn_id, error)
            yield Failed(str(error))
        except Exception:
            log.exception("turn %s failed", turn_id)
            yield Failed(f"Something went wrong on our side (turn {turn_id}). Please try again.")

    def _answer(self, turn: Turn, turn_id: str) -> Iterator[Event]:
        turn = replace(turn, question=cleaned(turn.question))
        if self.settings.english_only and (language := foreign_language(turn.question)):
            yield Noted(notice(language))
            turn = replace(turn, history=())  # nothing tells whether such a message follows up
        clock = Clock.start()
        self._check(turn)
        turn = take_reply(turn, self._titles)
        embed = _remembering(self._embed)
        parts = self.plan(turn, embed)
        if parts:
            answer = yield from in_parts(turn.question.strip(), parts, self._respond, clock)
        else:
            prepared = self._prepare(turn, clock, embed)
            choices = options(prepared.decision)
            if choices and self.settings.when_ambiguous == "both":
                answer = yield from in_parts(prepared.standalone, self._both(prepared, choices), self._respond, clock)
            elif choices and turn.may_ask:
                answer = yield from self._ask_back(prepared, choices, clock)
            else:
                answer = yield from self._respond(prepared, clock)
        _log_turn(turn_id, answer)
        yield Finished(answer)

    def _respond(self, prepared: Prepared, clock: Clock) -> Generator[Event, None, Answer]:
        """The events of a turn, or of one part of it, that has its route."""
        yield Routed(prepared.decision, prepared.standalone)
        yield Retrieved(prepared.found.hits)
        text, draft, decision = "", Draft(), prepared.decision
        for event in self._generate.stream(prepared):
            if isinstance(event, Draft):
                draft = event
                continue
            if isinstance(event, Routed):
                decision = event.decision
            if isinstance(event, Token):
                clock.first_token()
                text += event.text
            yield event
        related = self._related(draft, prepared.turn)
        clock.since_start("total")
        return Answer(
            standalone=prepared.standalone,
            decision=decision,
            text=text,
            refused=draft.refused,
            citations=draft.citations,
            fields=draft.fields,
            unsupported=draft.unsupported,
            timings_ms=clock.timings_ms,
            related=related,
        )

    def _ask_back(
        self, prepared: Prepared, choices: Sequence[RouteOption], clock: Clock
    ) -> Generator[Event, None, Answer]:
        """The clarifying question of an ambiguous turn."""
        labels = tuple(label(option, self._titles) for option in choices)
        decision = replace(prepared.decision, reason=f"{' or '.join(labels)}, about as likely")
        yield Routed(decision, prepared.standalone)
        yield Retrieved(prepared.found.hits)
        clock.first_token()
        text = which_one(choices, self._titles)
        yield from say(text)
        clock.since_start("total")
        return Answer(prepared.standalone, decision, text, False, timings_ms=clock.timings_ms, clarify=labels)

    def _both(self, prepared: Prepared, choices: Sequence[RouteOption]) -> list[Planned]:
        """The turn once for each of the options that are about as likely."""
        parts = []
        for option in choices:
            decision = replace(
                prepared.decision,
                route=option.route,
                adapter=option.adapter,
                workflow=option.workflow,
                alternative=None,
                forced=True,  # each says what it has, however sure it is
                reason=f"{label(option, self._titles)}, one of two about as likely",
            )
            parts.append(Planned(source(option, self._titles), replace(prepared, decision=decision), Clock.start()))
        return parts

    def plan(self, turn: Turn, embed: Embed | None = None) -> list[Planned]:
        """The parts of a message with several intents, ready to be answered; [] for a message with one."""
        embed = embed or _remembering(self._embed)

        def prepare(piece: Turn) -> tuple[Prepared, Clock]:
            clock = Clock.start()
            return self._prepare(piece, clock, embed), clock

        return split(turn, prepare)

    def prepare(self, turn: Turn) -> Prepared:
        """The turn as it is understood, searched and routed, whatever its intents; nothing is answered."""
        return self._prepare(turn, Clock.start(), _remembering(self._embed))

    def _check(self, turn: Turn) -> None:
        """Raises TurnError for a message that is not answered at all."""
        if not turn.question.strip():
            raise TurnError("The message is empty: type a question, or paste a ticket.")
        if len(turn.question) > self.settings.question_chars:
            raise TurnError(
                f"The message has {len(turn.question):,} characters; at most {self.settings.question_chars:,} "
                "are read. Shorten it, or drop it here as a document and ask about it."
            )

    def _prepare(self, turn: Turn, clock: Clock, embed: Embed) -> Prepared:
        """The turn with its route; `embed` remembers what it embedded of the turn before."""
        k = self.settings.passages
        look = _looking_once(partial(look_up, self.library, embed, k=k, collections=turn.collections))
        understood = condense(turn.question, turn.history, partial(self.compare, embed, look))
        clock.lap("condense")
        vector = vector_of(embed, understood)
        clock.lap("embed")
        found, ordered = look_around(self.library, look, embed, understood, vector, k, turn.collections)
        clock.lap("search")
        given = RouterInput(vector, found, ordered, turn.route, turn.adapter, turn.workflow)
        decision = _about_itself(turn) or self._decide.invoke(given)
        clock.lap("route")
        return Prepared(turn, understood.standalone, vector, found, decision)

    def _related(self, draft: Draft, turn: Turn) -> tuple[RelatedDocument, ...]:
        """Documents near the passages that were cited, for whoever wants to read on; of a refusal, the closest."""
        if draft.refused:
            return draft.closest
        passages = list({one.passage: one.as_passage() for one in draft.citations}.values())
        try:
            return tuple(self.library.related(passages, RELATED, turn.collections, RELATED_LEAST))
        except LibraryError as error:
            log.warning("no related documents: %s", error)  # the answer stands without them
            return ()

    def compare(self, embed: Embed, look: LookUp, message: str, previous: str) -> Closeness:
        """How near a message is by itself to what the desk knows, and to the question before it."""
        own, before = embed([message, previous])
        found, ordered = look(message, own)
        chances = self.router.decide(RouterInput(own, found, ordered)).probabilities
        handled = chances[Route.ADAPTER] + chances[Route.BOTH]
        passage = max((hit.similarity for hit in found.hits), default=0.0)
        return Closeness(passage, self.router.nearest(own), float(own @ before), chances[Route.NONE], handled)

    def _facts(self, turn: Turn) -> Facts:
        """What this assistant may say of itself to the turn's sender."""
        settings, base = self.settings, self.engine.base
        return Facts(
            title=settings.title,
            contact=settings.contact,
            examples=settings.examples,
            documents=self.library.counts(turn.collections),
            adapters=[(info.name, info.domain) for info in self.engine.adapters if "chat" in info.capabilities],
            workflows=[workflow.title for workflow in settings.workflows.values()],
            base=base.name,
            embedder=self.library.embedder.name,
            reads=base.can_read,
        )

    def _documents(self, prepared: Prepared) -> Iterator[Event | Draft]:
        return self._from_documents(prepared, self.judge.judge(prepared.standalone, prepared.found))

    def _from_documents(self, prepared: Prepared, judgement: Judgement) -> Iterator[Event | Draft]:
        reader = self._model if self.engine.base.can_read else None
        embed, contact = self.library.embedder.embed, self.settings.contact
        answer = partial(answer_from_documents, prepared, judgement, self.library, self.judge, embed, contact=contact)
        told = False
        try:
            for event in answer(model=reader):
                told = True
                yield event
        except ServerError as error:
            if told:
                raise
            log.warning("quoted instead of read: %s", error)
            yield from answer(model=None)

    def _adapter(self, prepared: Prepared) -> Iterator[Event | Draft]:
        least = {info.name: info.least_confidence for info in self.engine.adapters}.get(prepared.decision.adapter or "")
        contact = self.settings.contact
        return answer_from_adapter(prepared, self._model, least, self._from_documents, self.judge, contact)

    def _workflow(self, prepared: Prepared) -> Iterator[Event | Draft]:
        workflow = self.settings.workflows[prepared.decision.workflow or ""]
        return run_workflow(prepared, workflow, self.engine, self.library, self.judge)

    def _refuse(self, prepared: Prepared) -> Iterator[Event | Draft]:
        if prepared.decision.own:
            yield from say(about(self._facts(prepared.turn)))
            yield Draft()
            return
        yield from say(cannot_help(self.settings.title, self.settings.examples, self.settings.contact))
        yield Draft(refused=True)


def _remembering(embed: Embed) -> Embed:
    """`embed` for one turn, in which the same message is asked for more than once."""
    known: dict[str, Vectors] = {}

    def once(texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return once


def _looking_once(look: LookUp) -> LookUp:
    """`look` for one turn, in which a message that stands alone is looked up to understand it and to answer it."""
    known: dict[str, tuple[SearchResult, bool]] = {}

    def once(message: str, vector: Vectors) -> tuple[SearchResult, bool]:
        if message not in known:
            known[message] = look(message, vector)
        return known[message]

    return once


def _about_itself(turn: Turn) -> RouteDecision | None:
    """The decision for a question about the assistant itself; None for every other, and where the sender chose."""
    if turn.route or turn.adapter or turn.workflow or not asks_about_the_assistant(turn.question):
        return None
    sure = {route: float(route is Route.NONE) for route in Route}
    return RouteDecision(Route.NONE, None, None, sure, "what I am and what I can do", own=True)


def _streaming(
    chain: Callable[[Prepared], Iterator[Event | Draft]],
) -> RunnableGenerator[Prepared, Event | Draft]:
    """A chain as a runnable whose stream passes events on as they come."""

    def run(inputs: Iterator[Prepared]) -> Iterator[Event | Draft]:
        for prepared in inputs:
            yield from chain(prepared)

    return RunnableGenerator(run, name=chain.__name__)


def _log_turn(turn_id: str, answer: Answer) -> None:
    decision = answer.decision
    log.info(
        "turn %s route=%s p=%.2f adapter=%s passages=%s words=%d refused=%s total_ms=%.0f",
        turn_id,
        decision.route.value,
        decision.probabilities[decision.route],
        decision.adapter or decision.workflow,
        ",".join(dict.fromkeys(citation.passage for citation in answer.citations)) or "-",
        len(answer.text.split()),
        answer.refused,
        answer.timings_ms["total"],
    )
