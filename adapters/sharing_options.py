"""`python -m adapters merge|export|push`: their options, and what they print. merge.py, export.py and push.py do it."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from desk.settings import AdapterSettings, Desk


def sharing_options(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Adds the three commands, each with its options."""
    merge = command("merge", "Add an adapter into its base's 16-bit weights, and measure what that costs.")
    merge.add_argument("name", metavar="NAME")
    merge.add_argument("--output", type=Path, metavar="DIR", help="folder for the model (default: merged/NAME in var/)")
    export = command("export", "Write adapters as PEFT's folders, and say how vLLM is started with them.")
    export.add_argument("names", nargs="+", metavar="NAME")
    export.add_argument("--output", type=Path, metavar="DIR", help="folder for the folders (default: exported in var/)")
    push = command("push", "Put an adapter, or a merged model, on the Hugging Face hub.")
    push.add_argument("name", metavar="NAME")
    push.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repository; made if it is not there")
    push.add_argument("--private", action="store_true", help="a repository that others do not see")
    what = push.add_mutually_exclusive_group()
    what.add_argument(
        "--merged",
        nargs="?",
        type=Path,
        const=True,
        metavar="DIR",
        help="the merged model (default: merged/NAME in var/)",
    )
    what.add_argument("--with-report", action="store_true", help="the reports too: they quote held-out rows")
    push.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")


def _merge(desk: Desk, options: argparse.Namespace) -> None:
    from adapters.merge import merge_adapter

    output = options.output or _merged_folder(desk.adapters, options.name)
    merged = merge_adapter(desk.adapters, options.name, output)
    before, after = merged.before, merged.after
    if options.json:
        scores = {"before": asdict(before), "after": asdict(after), "identical": merged.identical, "rows": merged.rows}
        told = {"type": "merged", "output": str(output), "warning": merged.warning, **scores}
        print(json.dumps(told | {"model": merged.model.model_dump()}))
        return
    print(f"{merged.model.name}: {merged.model.size} in {output}")
    print(
        f"On {merged.rows:,} held-out rows: exactly right {before.exact:.1%} with the adapter ({before.kind}), "
        f"{after.exact:.1%} merged ({after.kind}); perplexity {before.perplexity:.3f} and {after.perplexity:.3f}; the "
        f"same answer to {merged.identical:.1%}."
    )
    if merged.warning:
        print(f"warning: {merged.warning}")


def _export(desk: Desk, options: argparse.Namespace) -> None:
    from adapters.export import export_adapters, serve_command

    output = options.output or desk.adapters.trained.with_name("exported")
    exported = export_adapters(desk.adapters, options.names, output)
    command = serve_command(desk.adapters.base, exported)
    if options.json:
        rows = [asdict(one) | {"folder": str(one.folder)} for one in exported]
        print(json.dumps({"type": "exported", "adapters": rows, "command": command}))
        return
    for one in exported:
        print(f"{one.name}: rank {one.rank}, in {one.folder}")
    print(f"vLLM serves them with\n{command}")


def _push(desk: Desk, options: argparse.Namespace) -> None:
    from adapters.push import adapter_push, merged_push, send

    if options.merged:
        folder = _merged_folder(desk.adapters, options.name) if options.merged is True else options.merged
        push = merged_push(desk.adapters, options.name, folder, options.repo, private=options.private)
    else:
        report = options.with_report
        push = adapter_push(desk.adapters, options.name, options.repo, private=options.private, with_report=report)
    address = "" if options.dry_run else send(push)
    if options.json:
        files = [{"name": file.name, "bytes": file.size} for file in push.files]
        told = {"type": "push", "sent": not options.dry_run, "repo": push.repo, "private": push.private}
        print(json.dumps(told | {"message": push.message, "files": files, "bytes": push.size, "commit": address}))
        return
    if options.dry_run:
        kind = "a private repository" if push.private else "a public repository, unless its owner's default is private"
        print(f"Would go to {push.repo}, made if it is not there: {kind}. Nothing was sent.")
    else:
        print(f"Pushed to {push.repo}: {address}")
    for file in push.files:
        print(f"{file.size:14,}  {file.name}")
    print(f"{push.size:14,}  bytes in {len(push.files)} files, one commit: {push.message}")


def _merged_folder(settings: AdapterSettings, name: str) -> Path:
    return settings.trained.with_name("merged") / name


SHARING: dict[str, Callable[[Desk, argparse.Namespace], None]] = {"merge": _merge, "export": _export, "push": _push}
