"""The untrained model that learns to read: Phi-3 in shape, with heads that find and copy laid out at the start.

To copy a fact, a model must find where a word stood before and take what followed it: one head passes every token on to
the next, and after it one looks for the token at hand among those passed on (induction heads, Olsson and others 2022,
arXiv:2209.11895). Left to chance such heads take most of a short training to form. Here some heads begin as such, as
mimetic initialisation does for vision models (Trockman and Kolter 2023, arXiv:2305.09828): in layer 0 heads that look
one and two places back, and one that gathers the last words; in layer 1 heads that go on where two tokens stood before;
in layer 2 and POINTING_LAYER heads that look for the place where a question's words were gathered, and copy what stands
there. Every weight goes on to be trained.
"""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.tiny.reading import ReadingRecipe

POINTING_LAYER = 3
"""The layer whose heads are taught where to look."""
HEADS = 3
"""The least that are needed: two look at single places, one gathers."""
TURNING = 0.25
"""Share of a head's dimensions that know places; the others compare contents alone."""
EMBEDDING_STD = 0.05
SHARED = 0.8
"""Length of the part that all embeddings share, about as long as the rest: heads that look at places alone read it."""
PLACE_SCORES = (12.0, 9.0, 6.0)
"""How much each of the fastest rotations adds to the score of the place looked at: its neighbours get 6 less."""
WINDOW_SCORES = (0.0, 2.0, 6.0, 6.0)
WINDOW_BACK = 4
"""The same for the head that gathers some nine tokens, and how far back their middle lies."""
MATCH = 2.0
LIKE = 1.0
"""Scales of query and key: two tokens that match score about 8 more than others, gathered words a little more."""
PASSED_ON = 0.1
GATHERED = 0.3
COPIED = 0.3
FOUND = 0.15
POINTED_AT = 0.6
"""Scales of what heads write: what is passed on and gathered, and what is copied in layers 1, 2 and POINTING_LAYER."""


def new_reader(recipe: "ReadingRecipe", tokenizer: Any) -> Any:
    """An untrained Phi3ForCausalLM in the recipe's shape, laid out."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    assert recipe.heads >= HEADS and recipe.layers > POINTING_LAYER, "there is no room for the heads that are laid out"
    torch.manual_seed(recipe.seed)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.window,
        original_max_position_embeddings=recipe.window,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": TURNING},
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attention_dropout=0.0,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")],
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Phi3ForCausalLM(config)
    with torch.no_grad():
        _spread(model, recipe)
        _Layout(model, recipe).lay_out()
    return model


def _spread(model: Any, recipe: "ReadingRecipe") -> None:
    """Weights wide enough that a new layer's heads look at some tokens more than at others; weak ends of layers."""
    for name, weight in model.named_parameters():
        if name.endswith("embed_tokens.weight"):
            weight.normal_(std=EMBEDDING_STD)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.normal_(std=0.1 / math.sqrt(2 * recipe.layers * weight.shape[1]))
        elif weight.ndim > 1:
            weight.normal_(std=1 / math.sqrt(weight.shape[1]))


class _Layout:
    """The directions of a model that is laid out. All embeddings share one, `shared`; the gathered words have `apart`
    to themselves; embeddings lie in `words`."""

    def __init__(self, model: Any, recipe: "ReadingRecipe") -> None:
        import torch

        self._layers = [layer.self_attn for layer in model.model.layers]
        self._embedding = model.model.embed_tokens.weight
        self._heads, self._width = recipe.heads, recipe.hidden_size
        self._size = recipe.hidden_size // recipe.heads
        self._turning = round(TURNING * self._size)
        basis = torch.linalg.qr(torch.randn(self._width, self._width))[0]
        still = self._size - self._turning
        self._shared, self._apart, self._words = basis[0], basis[1 : 1 + still], basis[1 + still :]

    def lay_out(self) -> None:
        """Changes the model's weights in place."""
        words = self._embedding @ self._words.T @ self._words
        self._embedding.copy_(words + SHARED * self._shared)
        taken, one, two = (self._rows(self._size) for _ in range(3))
        for head, (back, put) in enumerate(((1, one), (2, two))):
            self._look_back(head, back, PLACE_SCORES)
            self._move(0, head, taken, put, PASSED_ON)
        still = len(self._apart)
        self._look_back(2, WINDOW_BACK, WINDOW_SCORES)
        self._move(0, 2, self._rows(still), self._apart, GATHERED)
        half = still // 2
        for head in range(2):
            # Two tokens are compared, as one alone, a figure say, stands in many places.
            part = slice(head * (self._size - half), head * (self._size - half) + half)
            self._compare(1, head, (taken[part], one[part]), (one[part], two[part]), MATCH)
            copied = self._rows(self._size)
            self._move(1, head, copied, copied, COPIED)
            self._compare(2, head, (self._apart,), (self._apart,), MATCH)
            copied = self._rows(self._size)
            self._move(2, head, copied, copied, FOUND)
        self._lay_out_pointing()

    def _lay_out_pointing(self) -> None:
        """Together the pointing heads copy whole embeddings, each a part."""
        import torch

        parts = self._rows(len(self._words))
        for head in range(self._heads):
            part = parts[torch.arange(head * self._size, (head + 1) * self._size) % len(parts)]
            self._compare(POINTING_LAYER, head, (self._apart,), (self._apart,), LIKE)
            self._move(POINTING_LAYER, head, part, part, POINTED_AT)

    def _rows(self, count: int) -> Any:
        """`count` random orthonormal rows among the words."""
        import torch

        return torch.linalg.qr(torch.randn(len(self._words), count))[0].T @ self._words

    def _look_back(self, head: int, back: int, scores: tuple[float, ...]) -> None:
        """In layer 0: query and key from the shared part alone, turned against each other by so many places."""
        query, key = self._query_key(0, head)
        query.zero_()
        key.zero_()
        # A normalised token's shared part: SHARED over the root mean square of the whole.
        whole = SHARED**2 + len(self._words) * EMBEDDING_STD**2
        strength = SHARED / math.sqrt(whole / self._width)
        turns = self._turning // 2
        for place, score in enumerate(scores[:turns]):
            length = math.sqrt(score * math.sqrt(self._size)) / strength
            angle = back * 10000.0 ** (-place / turns)
            key[place] = length * self._shared
            query[place] = length * math.cos(angle) * self._shared
            query[place + turns] = -length * math.sin(angle) * self._shared

    def _compare(self, layer: int, head: int, asked: tuple[Any, ...], held: tuple[Any, ...], scale: float) -> None:
        """Query and key read these directions, in the dimensions that know no places."""
        import torch

        query, key = self._query_key(layer, head)
        query.zero_()
        key.zero_()
        for weight, rows in ((query, torch.cat(asked)), (key, torch.cat(held))):
            weight[self._turning : self._turning + len(rows)] = scale * rows

    def _move(self, layer: int, head: int, taken: Any, put: Any, scale: float) -> None:
        """What the head reads along `taken` it writes along `put`."""
        attention = self._layers[layer]
        value = attention.qkv_proj.weight[2 * self._width + head * self._size :][: self._size]
        output = attention.o_proj.weight[:, head * self._size : (head + 1) * self._size]
        value.zero_()
        output.zero_()
        value[: len(taken)] = taken
        output[:, : len(put)] = scale * put.T

    def _query_key(self, layer: int, head: int) -> tuple[Any, Any]:
        """Views of a head's rows in the fused projection."""
        weight = self._layers[layer].qkv_proj.weight
        start = head * self._size
        return weight[start : start + self._size], weight[self._width + start :][: self._size]
