"""What an owner writes: desk.yaml, routes.yaml and workflows/*.yaml, as they are checked. `config.py` reads them."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from desk.connectors import AnyConnector, Variable
from desk.edge import Edge
from desk.index_file import IndexFile, is_plain_address

Quantization = Literal["auto", "nf4", "bf16", "fp32"]
WhenAmbiguous = Literal["ask", "both"]
EngineName = Literal["local", "openai"]


class ModelsFile(Edge):
    """Which models answer, and where. `api_key_env` names an environment variable: no secret is written into a file."""

    engine: EngineName = "local"
    url: str = ""
    api_key_env: str = Field(default="", pattern=r"^([A-Z][A-Z0-9_]*)?$")
    base: str = "embedded"
    quantization: Quantization = "auto"
    threads: int = Field(default=2, ge=1, le=256)
    rows: int = Field(default=8, ge=1, le=256)
    adapter_mb: int = Field(default=1024, ge=1, le=1_000_000)
    answer_s: int = Field(default=300, ge=1, le=86_400)

    @model_validator(mode="after")
    def _fits_its_engine(self) -> Self:
        foreign = {"url", "api_key_env"} if self.engine == "local" else {"quantization", "rows", "adapter_mb"}
        if unfit := sorted(self.model_fields_set & foreign):
            raise ValueError(f"{', '.join(unfit)} cannot be set with engine: {self.engine}")
        if self.engine == "openai" and not (self.url and is_plain_address(self.url)):
            raise ValueError(
                "engine: openai needs url: http(s)://HOST[:PORT]/PATH, without user, password, query or fragment"
            )
        return self


class LimitsFile(Edge):
    upload_mb: int = Field(default=20, ge=1, le=1000)
    question_chars: int = Field(default=8000, ge=100, le=100_000)
    answer_tokens: int = Field(default=256, ge=16, le=4096)
    parallel_turns: int = Field(default=8, ge=1, le=256)


class RoutingFile(Edge):
    out_of_scope_recall: float = Field(default=0.9, ge=0.5, le=0.99)
    ambiguity_margin: float = Field(default=0.2, ge=0, le=1)


class CollectionFile(Edge):
    """Documents (of a folder, or of connectors) that only members of some groups may read; none means everyone."""

    folder: str | None = None
    groups: tuple[str, ...] = ()


class RecordsFile(Edge):
    """Where feedback is kept; `url_env` names the environment variable with a database's address."""

    url_env: Variable | Literal[""] = ""


class DeskFile(Edge):
    title: str
    description: str
    examples: tuple[str, ...] = ()
    contact: str = ""
    models: ModelsFile = ModelsFile()
    index: IndexFile = IndexFile()
    collections: dict[str, CollectionFile] = Field(default={})
    limits: LimitsFile = LimitsFile()
    routing: RoutingFile = RoutingFile()
    records: RecordsFile = RecordsFile()
    when_ambiguous: WhenAmbiguous = "ask"
    connectors: tuple[AnyConnector, ...] = ()


class RoutesFile(Edge):
    """Utterances by what should answer them. Adapters also bring their own training questions."""

    retrieval: tuple[str, ...] = Field(min_length=1)
    adapters: dict[str, tuple[str, ...]] = Field(default={})
    workflows: dict[str, tuple[str, ...]] = Field(default={})
    out_of_scope: tuple[str, ...] = Field(min_length=1)


class FieldFile(Edge):
    """One field of a workflow's output: its title on the page and the values it may take."""

    title: str
    description: str = ""
    choices: tuple[str, ...] = Field(min_length=2)


class WorkflowFile(Edge):
    title: str
    adapter: str
    instruction: str
    trigger: str
    fields: dict[str, FieldFile] = Field(min_length=1)
    reply_opening: str
    reply_closing: str

    @property
    def output_schema(self) -> dict[str, Any]:
        """The JSON schema that the workflow's fields satisfy."""
        return {
            "type": "object",
            "additionalProperties": False,
            "required": list(self.fields),
            "properties": {
                name: {"title": field.title, "description": field.description, "enum": list(field.choices)}
                for name, field in self.fields.items()
            },
        }
