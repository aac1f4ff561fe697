"""What each layer is given of a desk: frozen, complete, and without a secret. `config.py` makes them."""

from dataclasses import dataclass
from pathlib import Path

from desk.connectors import Connector
from desk.desk_file import Quantization, RoutesFile, WhenAmbiguous, WorkflowFile
from desk.index_file import MilvusSettings, OpenAISettings, SentenceTransformersSettings, StoreName

RESERVED = frozenset({"desk"})
"""Collections that are not for the owner to name: the one of every document that no other collection takes in."""
UPLOADS = "user:"
"""What the name of a collection begins with that holds somebody's uploads."""


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """The documents below `folder` (relative to the desk; None: connectors' alone) for `groups`, or for everyone."""

    name: str
    folder: str | None
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What `index` needs: where documents are, where state goes, how text is cut. Sizes in tokens, MB.

    `connectors` bring documents from elsewhere; they name the environment variables of their secrets.
    `embedder` None is the embedded all-MiniLM-L6-v2.
    """

    documents: Path
    state: Path
    models: Path
    chunk_tokens: int
    passages: int
    upload_mb: int
    threads: int
    collections: tuple[CollectionSettings, ...] = ()
    connectors: tuple[Connector, ...] = ()
    embedder: SentenceTransformersSettings | OpenAISettings | None = None
    reranker: str | None = None
    store: StoreName = "local"
    milvus: MilvusSettings | None = None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """A model server that speaks OpenAI's chat completions at `url`; the variable `key_env`, if any, holds its key.

    `base` is the base model's name there; "" stands for the embedded one, which goes by its own.
    """

    url: str
    base: str
    key_env: str = ""


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What `adapters` needs: the base model, and where shipped and trained adapters are.

    A base that is quantised at its first start is kept in `cache`. `rows` answers are written side by side; adapters
    beyond `adapter_bytes` are let go, the least recently used first. An answer may take `answer_s`. With a `server`
    that one answers, and `base` is what adapters are trained on here.
    """

    base: str
    quantization: Quantization
    shipped: Path
    trained: Path
    threads: int
    answer_tokens: int
    cache: Path
    rows: int = 8
    adapter_bytes: int = 1 << 30
    answer_s: float = 300
    server: ServerSettings | None = None


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """`out_of_scope_recall` is the share of what is out of scope that is to be declined; two options whose
    probabilities differ by less than `ambiguity_margin` make a turn ambiguous."""

    out_of_scope_recall: float = 0.9
    ambiguity_margin: float = 0.2


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """What `chains` needs: the words of the desk, its routes and workflows, and golden turns to fit on.

    `english_only` says that the embedding model is the embedded one, which knows English alone. A model may
    take `answer_s` for an answer.
    """

    title: str
    contact: str
    examples: tuple[str, ...]
    routes: RoutesFile
    workflows: dict[str, WorkflowFile]
    adapter_folder: Path
    golden_dev: Path
    state: Path
    passages: int
    question_chars: int
    english_only: bool
    answer_s: float = 300
    routing: RoutingSettings = RoutingSettings()
    when_ambiguous: WhenAmbiguous = "ask"


@dataclass(frozen=True, slots=True)
class AppSettings:
    """`records` is the file of the records, unless `records_url_env` names the variable with a database's address."""

    title: str
    description: str
    examples: tuple[str, ...]
    host: str
    port: int
    parallel_turns: int
    upload_mb: int
    records: Path
    records_url_env: str


@dataclass(frozen=True, slots=True)
class Desk:
    name: str
    root: Path
    state: Path
    index: IndexSettings
    adapters: AdapterSettings
    chains: ChainSettings
    app: AppSettings
