"""A turn that two options could answer about as well: what they are called, and what a choice between them means."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chains.turn import Route, RouteDecision, RouteOption, Turn


def options(decision: RouteDecision) -> tuple[RouteOption, ...]:
    """The two options of an ambiguous decision, the likelier first; () where there is nothing to choose.

    A choice of the sender is never questioned, and a refusal is no option.
    """
    first = decision.option
    second = decision.alternative
    if decision.forced or second is None or Route.NONE in (first.route, second.route) or first == second:
        return ()
    return first, second


def label(option: RouteOption, titles: Mapping[str, str]) -> str:
    """The option in a word or two; `titles` are those of the workflows."""
    if option.route is Route.RETRIEVAL:
        return "Documents"
    return option.adapter or titles.get(option.workflow or "", option.workflow or option.route.value)


def source(option: RouteOption, titles: Mapping[str, str]) -> str:
    """The heading over what an option answers."""
    return "From the documents" if option.route is Route.RETRIEVAL else f"From {label(option, titles)}"


def which_one(choices: Sequence[RouteOption], titles: Mapping[str, str]) -> str:
    """The clarifying question."""
    ways = {
        Route.RETRIEVAL: "search the documents",
        Route.ADAPTER: "ask {}",
        Route.BOTH: "start {}",
    }
    offers = [ways[option.route].format(label(option, titles)) for option in choices]
    return f"I can {' or '.join(offers)} for this. Which one do you want?"


def with_choice(turn: Turn, option: RouteOption) -> Turn:
    """The turn with that option chosen by its sender."""
    return replace(turn, route=option.route, adapter=option.adapter, workflow=option.workflow, may_ask=False)


def take_reply(turn: Turn, titles: Mapping[str, str]) -> Turn:
    """The question before with the option that this message names; or the turn, which asks nothing twice.

    A clarifying question is mostly answered with a button, but may be with a word.
    """
    if not turn.history:
        return turn
    said, last = _plain(turn.question), turn.history[-1]
    for option in last.options:
        if said == _plain(label(option, titles)):
            asked = replace(turn, question=last.question, history=turn.history[:-1], may_ask=False)
            return asked if turn.route or turn.adapter or turn.workflow else with_choice(asked, option)
    kept = tuple(past for past in turn.history if not past.options or said != _plain(past.question))
    return replace(turn, history=kept, may_ask=turn.may_ask and len(kept) == len(turn.history))


def _plain(text: str) -> str:
    return " ".join(text.casefold().strip(" \t\n.!?").split())
