"""The embedded base's model card, from its manifest: what it was made of, and what it can and cannot do."""

from adapters.config import BaseManifest


def base_card(manifest: BaseManifest) -> str:
    """README.md beside the base's weights."""
    made = manifest.created
    recipe = "\n".join(f"| {name} | {value} |" for name, value in sorted(made.items()) if name != "corpus_hash")
    return f"""# {manifest.name}

A model of Phi-3's architecture with {manifest.parameters:,} weights (stored in bf16), trained from scratch by
`python -m adapters pretrain`, so that adapters can be trained, served and tested on a laptop without any download.

## Data

The desk's own documents and the files of its `pretraining/` folder (restatements, dialogues, a glossary): texts of this
project, fingerprint `{made.get("corpus_hash", "not known")}`. No adapter's pairs, no public data set. MiniLM
(all-MiniLM-L6-v2, Apache 2.0) was the teacher of which questions mean the same; its weights are not in here.

## What it can and cannot do

- With a LoRA adapter it answers questions of the adapter's domain in the adapter's ready words, or fills a form's
  fields. The adapters' held-out figures are in docs/evaluation.md.
- Without an adapter it says nothing of use: it was trained to be adapted, and knows next to nothing of the world.
- It cannot read: shown a passage and a question, it does not find the answer. Answers from documents are therefore
  quotes that the judge chooses, never its own words.
- English only. Up to {manifest.window:,} tokens, though what it learned from was cut at {made.get("text_tokens", "?")}.

## Recipe

| | |
|---|---|
{recipe}
| weights (SHA-256) | `{manifest.weights_hash}` |
| shape (SHA-256) | `{manifest.config_hash}` |
"""
