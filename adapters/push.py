"""An adapter, or a merged model, on the Hugging Face hub: what is sent is listed by name, and rows of people never are.

Nothing is sent that is not named here: not the training and evaluation rows, nor which of them were held out; reports,
which quote rows and answers, only when somebody asks for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from adapters.base import read_base_manifest
from adapters.base_files import ACCOMPANYING, INDEX, shard_names
from adapters.card import short_card
from adapters.config import BaseManifest, files_hash, read_adapter_file, read_manifest
from adapters.errors import AdapterError, HubError
from adapters.folders import CARD, CURVES, LOSSES, REPORT, REPORT_PAGE
from adapters.registry import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE, find_adapter
from desk.settings import AdapterSettings

ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE, LOSSES, CURVES)
REPORTS = (REPORT, REPORT_PAGE)


@dataclass(frozen=True, slots=True)
class Sent:
    """A file by its name on the hub: one of this machine, or text that was made for the hub."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True, slots=True)
class Push:
    """What is to be on the hub, as one commit with that message."""

    repo: str
    private: bool
    files: tuple[Sent, ...]
    message: str

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def adapter_push(settings: AdapterSettings, name: str, repo: str, *, private: bool, with_report: bool) -> Push:
    """The folder of the version that serves, with its card. Raises ModelError; reaches for no network."""
    check_repo(repo)
    found = find_adapter(settings, name, read_base_manifest(settings.base))
    manifest = found.manifest
    if files_hash([found.folder / WEIGHTS_FILE]) != manifest.weights_hash:
        raise AdapterError(f"{found.folder / WEIGHTS_FILE} is not the file that its manifest describes: restore it.")
    chosen = [*ADAPTER_FILES, *(REPORTS if with_report else ())]
    files = [Sent(file, found.folder / file) for file in chosen if (found.folder / file).is_file()]
    if with_report and not any(file.name in REPORTS for file in files):
        raise HubError(f"There is no report in {found.folder}: leave out --with-report, or train {name} here first.")
    card = found.folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else short_card(manifest)
    facts: dict[str, Any] = {"library_name": "peft", "pipeline_tag": "text-generation"}
    opening = front_matter(facts, manifest.base, _license(settings, name), ["lora", "phi3"])
    message = f"{manifest.title}, version {manifest.version}"
    return Push(repo, private, (_card(opening, text), *files), message)


def merged_push(settings: AdapterSettings, name: str, folder: Path, repo: str, *, private: bool) -> Push:
    """A merged model with its card. Raises ModelError; reaches for no network."""
    check_repo(repo)
    manifest = read_manifest(folder / "base.json", BaseManifest)
    if manifest.created.get("adapter") != name:
        raise AdapterError(f"{folder} is no merged model of {name}: `python -m adapters merge {name}` makes one.")
    shards = shard_names(folder)
    if files_hash([folder / shard for shard in shards]) != manifest.weights_hash:
        raise AdapterError(
            f"The weights in {folder} are not those that its base.json describes: `python -m adapters merge {name}` "
            "makes them anew."
        )
    chosen = ["config.json", "base.json", INDEX, *ACCOMPANYING, *shards]
    files = [Sent(file, folder / file) for file in chosen if (folder / file).is_file()]
    facts: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    opening = front_matter(facts, str(manifest.created.get("base", "")), _license(settings, name), ["phi3"])
    text = (folder / CARD).read_text(encoding="utf-8")
    return Push(repo, private, (_card(opening, text), *files), manifest.note)


def front_matter(facts: dict[str, Any], base: str, license_: str, tags: Sequence[str]) -> str:
    """The opening of a card that the hub reads; a base that the hub cannot know is left out."""
    if base.count("/") == 1:
        facts = {"base_model": base, **facts}
    if license_:
        facts = facts | {"license": license_}
    return f"---\n{yaml.safe_dump({**facts, 'tags': list(tags)}, sort_keys=False)}---\n"


def _card(opening: str, text: str) -> Sent:
    """A card that somebody has given a front matter of its own keeps it."""
    return Sent(CARD, (text if text.startswith("---\n") else opening + text).encode())


def check_repo(repo: str) -> None:
    """Raises HubError for a name that no repository can have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, not listed

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no name for a repository: {error} Write --repo OWNER/NAME.") from None
    if "/" not in repo:
        raise HubError(f"{repo!r} names no owner: write --repo OWNER/NAME.")


def send(push: Push) -> str:
    """Creates the repository if it is not there and adds one commit; the commit's address. Raises HubError."""
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    token = get_token()
    if not token:
        raise HubError("There is no token for the hub: run `hf auth login`, or put one that may write into HF_TOKEN.")
    api = HfApi(token=token)
    try:
        # None leaves it to the owner's own default, which is public unless an organisation says otherwise.
        api.create_repo(push.repo, private=True if push.private else None, exist_ok=True)
        if push.private and not api.model_info(push.repo).private:
            raise HubError(f"{push.repo} is there already and public: make it private first, or name another one.")
        files = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.content) for file in push.files]
        commit = api.create_commit(push.repo, operations=files, commit_message=push.message)
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise HubError(_told(error, push.repo, constants.ENDPOINT).replace(token, "***")) from None
    return str(commit.commit_url)


def _told(error: Exception, repo: str, endpoint: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    if isinstance(error, OfflineModeIsEnabled):
        return "Nothing was pushed: HF_HUB_OFFLINE keeps the hub's library off the network."
    if not isinstance(error, HfHubHTTPError):
        return f"The hub at {endpoint} was not reached, or broke off ({first}): check the connection and push again."
    status = error.response.status_code
    if status == 401:
        return f"The hub at {endpoint} does not know the token: log in anew with `hf auth login`, or correct HF_TOKEN."
    if status == 403:
        return f"The token may not write to {repo}: use one with write rights there, or name another owner."
    if status == 404:
        return f"The hub at {endpoint} has no {repo} that this token may see: check the owner's name."
    return f"The hub at {endpoint} refused {repo} with status {status} ({(error.server_message or first)[:200]})."


def _license(settings: AdapterSettings, name: str) -> str:
    return read_adapter_file(settings.shipped / name / "adapter.yaml").license
