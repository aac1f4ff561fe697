"""Floors under a desk's figures: what was reached once must not be lost unseen. Beside them what is aimed at."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from desk.errors import DeskError
from evaluation.measures import AT_MOST
from evaluation.share import Share

NAME = "floors.json"


class Floors(BaseModel):
    """Recorded figures by part and name, on the test half; `goals` are what reports show beside them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recorded: str = Field(description="when, and at which commit")
    parts: dict[str, dict[str, float]]
    goals: dict[str, dict[str, float]] = Field(default_factory=dict)


def read_floors(path: Path) -> Floors:
    """The floors of a desk. Raises DeskError for a missing or malformed file."""
    try:
        return Floors.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DeskError(
            f"{path} cannot be read ({error.strerror}): record floors there, or leave --floors out."
        ) from None
    except (json.JSONDecodeError, ValidationError) as error:
        raise DeskError(f"{path} holds no floors: {str(error)[:200]}") from None


def goals_of(desk: Path, part: str) -> dict[str, float]:
    """What is aimed at in a part of the desk in this folder; nothing where it has no such file."""
    path = desk / "evaluation" / NAME
    return read_floors(path).goals.get(part, {}) if path.is_file() else {}


def lost(report: Mapping[str, Mapping[str, Share]], floors: Floors) -> list[str]:
    """A sentence per figure that lies beyond its floor by more than its own 95% interval, or is not there at all."""
    sentences = []
    for part, figures in floors.parts.items():
        for name, floor in figures.items():
            share = report.get(part, {}).get(name)
            if share is None or not share.total:
                sentences.append(f"{part}: {name} was not measured; its floor is {floor:.1%}.")
                continue
            low, high = share.interval
            if (low > floor) if name in AT_MOST else (high < floor):
                way = "above" if name in AT_MOST else "below"
                sentences.append(f"{part}: {name} is {share.value:.1%} ({low:.1%} to {high:.1%}), {way} {floor:.1%}.")
    return sentences
