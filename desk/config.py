"""The only reader of desk.yaml, routes.yaml, workflows/*.yaml and the environment.

`load_desk` checks them all and hands each layer its own frozen settings. It does not open documents,
models or indexes.
"""

import os
import re
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from desk.connectors import LOADERS, Connector, at_home
from desk.desk_file import CollectionFile, DeskFile, ModelsFile, RoutesFile, WorkflowFile
from desk.errors import DeskError
from desk.index_file import (
    EmbedderFile,
    MilvusFile,
    MilvusSettings,
    OpenAISettings,
    SentenceTransformersSettings,
)
from desk.settings import (
    RESERVED,
    UPLOADS,
    AdapterSettings,
    AppSettings,
    ChainSettings,
    CollectionSettings,
    Desk,
    IndexSettings,
    RoutingSettings,
    ServerSettings,
)

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_DESK = ROOT / "desks" / "helpdesk"
EMBEDDED_BASE = ROOT / "adapters" / "tiny" / "base"

_NOT_SHOWN = frozenset({"index.embedder", "index.embedder.key", "index.embedder.url", "models", "models.url"})
"""Keys whose bad values are not repeated, nor any `..._env`'s: a secret may have been written there by mistake."""
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def state_root() -> Path:
    """`$SWITCHBOARD_HOME`, or `var/` beside the code."""
    home = os.environ.get("SWITCHBOARD_HOME", "").strip()
    return Path(home).expanduser().resolve() if home else ROOT / "var"


def load_desk(root: Path = DEFAULT_DESK) -> Desk:
    """The desk in `root`. Raises DeskError for a missing folder or file, an unknown key or a bad value."""
    root = root.expanduser().resolve()
    if not root.is_dir():
        raise DeskError(f"There is no desk at {root}: give a folder that holds desk.yaml (--desk DIR).")
    file = _read(root / "desk.yaml", DeskFile)
    routes = _read(root / "routes.yaml", RoutesFile)
    workflows = {path.stem: _read(path, WorkflowFile) for path in sorted((root / "workflows").glob("*.yaml"))}
    for name in routes.workflows:
        if name not in workflows:
            raise DeskError(
                f"{root / 'routes.yaml'}: workflows.{name} has no file workflows/{name}.yaml; "
                f"known workflows: {', '.join(workflows) or 'none'}."
            )
    state = state_root() / root.name
    return Desk(
        name=root.name,
        root=root,
        state=state,
        index=IndexSettings(
            documents=root / "documents",
            state=state / "index",
            models=state_root() / "models",
            chunk_tokens=file.index.chunk_tokens,
            passages=file.index.passages,
            upload_mb=file.limits.upload_mb,
            threads=file.models.threads,
            collections=_collections(root, file.collections),
            connectors=_connectors(root, file.connectors, RESERVED | file.collections.keys()),
            embedder=_embedder(root, file.index.embedder),
            reranker=_reranker(root, file.index.reranker),
            store=file.index.store,
            milvus=_milvus(state / "index", file.index.milvus),
        ),
        adapters=AdapterSettings(
            base=_base(root, file.models),
            quantization=file.models.quantization,
            shipped=root / "adapters",
            trained=state / "adapters",
            threads=file.models.threads,
            answer_tokens=file.limits.answer_tokens,
            cache=state_root() / "models",
            rows=file.models.rows,
            adapter_bytes=file.models.adapter_mb << 20,
            answer_s=file.models.answer_s,
            server=_server(file.models),
        ),
        chains=ChainSettings(
            title=file.title,
            contact=file.contact,
            examples=file.examples,
            routes=routes,
            workflows=workflows,
            adapter_folder=root / "adapters",
            golden_dev=root / "evaluation" / "dev.jsonl",
            state=state / "router",
            passages=file.index.passages,
            question_chars=file.limits.question_chars,
            answer_s=file.models.answer_s,
            routing=RoutingSettings(file.routing.out_of_scope_recall, file.routing.ambiguity_margin),
            english_only=file.index.embedder.kind == "minilm",
            when_ambiguous=file.when_ambiguous,
        ),
        app=AppSettings(
            title=file.title,
            description=file.description,
            examples=file.examples,
            host=_host(),
            port=_port(),
            parallel_turns=file.limits.parallel_turns,
            upload_mb=file.limits.upload_mb,
            records=state / "records.db",
            records_url_env=file.records.url_env,
        ),
    )


def _collections(root: Path, files: dict[str, CollectionFile]) -> tuple[CollectionSettings, ...]:
    found = []
    for name, file in files.items():
        folder = Path(file.folder) if file.folder is not None else None
        if name in RESERVED or name.startswith(UPLOADS):
            raise DeskError(f"{root / 'desk.yaml'}: collections.{name} is a reserved name: choose another.")
        if folder is not None and (folder.is_absolute() or ".." in folder.parts or folder.parts[:1] != ("documents",)):
            raise DeskError(
                f"{root / 'desk.yaml'}: collections.{name}.folder is {file.folder!r}: name a folder below documents/, "
                "for example documents/people."
            )
        found.append(CollectionSettings(name, folder.as_posix() if folder else None, frozenset(file.groups)))
    return tuple(found)


def secret(variable: str, connector: str) -> str:
    """The value of an environment variable that a connector names. Raises DeskError if it is absent or empty.

    Read at the moment of use, so that no settings object ever holds it.
    """
    return _value_of(variable, f"The connector {connector}")


def milvus_token(settings: MilvusSettings) -> str:
    """The token that Milvus wants, "" where none is named. Raises DeskError if its variable is absent or empty."""
    return _value_of(settings.token_env, f"Milvus at {settings.uri}") if settings.token_env else ""


def server_key(settings: ServerSettings) -> str:
    """The key that the model server wants, "" where none is named. Raises DeskError if its variable holds none."""
    if not settings.key_env:
        return ""
    key = _value_of(settings.key_env, "The models group of desk.yaml")
    if not re.fullmatch(r"[!-~]+", key):
        raise DeskError(
            f"The environment variable {settings.key_env} (models.api_key_env) holds characters that no key has: set "
            "it to the key of the model server."
        )
    return key


def records_address(settings: AppSettings) -> str:
    """The address of the records' database, "" where none is named. Raises DeskError if its variable is empty."""
    return _value_of(settings.records_url_env, "The desk's record keeping") if settings.records_url_env else ""


def service_key() -> str:
    """What each request to `python -m adapters serve` has to bring; "" where nothing is asked for."""
    return os.environ.get("SWITCHBOARD_MODELS_KEY", "").strip()


def _value_of(variable: str, who: str) -> str:
    value = os.environ[variable].strip() if variable in os.environ else ""
    if not value:
        raise DeskError(f"{who} needs the environment variable {variable}, which is not set: set it and start again.")
    return value


def _milvus(state: Path, file: MilvusFile) -> MilvusSettings | None:
    """Where Milvus is, if anywhere. A file's path that is relative is one in the folder of the library's state."""
    if not file.uri:
        return None
    uri = file.uri if "://" in file.uri else str((state / Path(file.uri).expanduser()).resolve())
    return MilvusSettings(uri, file.token_env, file.prefix)


def _connectors(root: Path, connectors: tuple[Connector, ...], known: frozenset[str]) -> tuple[Connector, ...]:
    for connector in connectors:
        if connector.collection not in known:
            raise DeskError(
                f"{root / 'desk.yaml'}: the connector {connector.name} puts documents into the collection "
                f"{connector.collection!r}, which is not among collections: add it there, with its groups."
            )
    names = [connector.name for connector in connectors]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeskError(
            f"{root / 'desk.yaml'}: two connectors have the name {twice[0]}: each needs one of its own, since its "
            "documents are kept under it."
        )
    return tuple(at_home(connector, root) for connector in connectors)


def _reranker(root: Path, value: str) -> str | None:
    return _folder_or_id(root, "index.reranker", value, "leave it out") if value else None


def _base(root: Path, file: ModelsFile) -> str:
    """A folder in full, an id of the hub, or the name that a server knows the base by."""
    if file.base == "embedded":
        return str(EMBEDDED_BASE)
    if file.engine == "openai":
        return file.base
    return _folder_or_id(root, "models.base", file.base, "set it to embedded")


def _server(file: ModelsFile) -> ServerSettings | None:
    if file.engine == "local":
        return None
    return ServerSettings(file.url.rstrip("/"), "" if file.base == "embedded" else file.base, file.api_key_env)


def _folder_or_id(root: Path, key: str, value: str, otherwise: str) -> str:
    """A folder in full, or an id of the hub as it is. Raises DeskError for what is neither."""
    local = (root / Path(value).expanduser()).resolve()
    if local.is_dir():
        return str(local)
    if not _HUB_ID.fullmatch(value):
        raise DeskError(
            f"{root / 'desk.yaml'}: {key} is {value!r}, but there is no folder {local}: correct the path, name a "
            f"model of the hub (owner/model), or {otherwise}."
        )
    return value


def _embedder(root: Path, file: EmbedderFile) -> SentenceTransformersSettings | OpenAISettings | None:
    if file.kind == "minilm":
        return None
    if file.kind == "sentence-transformers":
        model = _folder_or_id(root, "index.embedder.model", file.model, "leave index.embedder out")
        return SentenceTransformersSettings(model, file.download)
    return OpenAISettings(
        url=file.url,
        model=file.model,
        key=_secret(root, file.key) if file.key else "",
        dimensions=file.dimensions,
        batch=file.batch,
        tokens=file.tokens,
        query_task=file.query_task,
        passage_task=file.passage_task,
    )


def _secret(root: Path, name: str) -> str:
    """What an environment variable holds, fit for a header. Raises DeskError, which does not show it, otherwise."""
    try:
        value = os.environ[name].strip()
    except KeyError:
        value = ""
    if not re.fullmatch(r"[!-~]+", value):
        fault = "holds characters that no key has" if value else "is not set"
        raise DeskError(
            f"{root / 'desk.yaml'}: index.embedder.key names the environment variable {name}, which {fault}: set it to "
            "the key of the embedding service, or leave index.embedder.key out if the service wants none."
        )
    return value


def _host() -> str:
    """This machine alone unless told otherwise; on a Hugging Face Space, which names itself, everyone."""
    fallback = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"  # noqa: S104
    return os.environ.get("SWITCHBOARD_HOST", "").strip() or fallback


def _port() -> int:
    value = os.environ.get("SWITCHBOARD_PORT", "7860").strip()
    if not re.fullmatch(r"\d{1,5}", value) or not 0 <= int(value) <= 65535:
        raise DeskError(f"SWITCHBOARD_PORT is {value!r}: give a port number from 0 to 65535.")
    return int(value)


EdgeModel = TypeVar("EdgeModel", bound=BaseModel)


def _read(path: Path, model: type[EdgeModel]) -> EdgeModel:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DeskError(f"{path} is missing: a desk needs this file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DeskError(f"{path} is not readable YAML in UTF-8: {error}") from None
    if not isinstance(raw, dict):
        raise DeskError(f"{path} must hold keys and values, not {type(raw).__name__}.")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise DeskError(_explain(path, model, error)) from None


def _explain(path: Path, model: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = ", ".join(_keys_at(model, fault["loc"][:-1]))
            lines.append(f"unknown key {key!r}; accepted there: {known}")
        elif fault["loc"][:1] == ("connectors",) or fault["loc"][:2] in {("index", "milvus"), ("index",)}:
            # Whoever put a secret there by mistake must not find it in a log: the value is never repeated.
            lines.append(f"{key!r}: {fault['msg']}")
        else:
            hidden = key in _NOT_SHOWN or any(str(part).endswith("_env") for part in fault["loc"])
            got = "" if hidden else f" (got {repr(fault['input'])[:60]})"
            lines.append(f"{key!r}: {fault['msg']}{got}")
    return f"{path}: " + "; ".join(lines) + ". Correct the file and start again."


def _keys_at(model: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    if where[:1] == ("connectors",) and where[-1] in LOADERS:
        return sorted(LOADERS[str(where[-1])].model_fields)
    for part in where:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ["see docs/formats.md"]
        model = inner
    return sorted(model.model_fields)
