"""What every file that people write is checked with."""

from pydantic import BaseModel, ConfigDict


class Edge(BaseModel):
    """An unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
