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

from adapters.tiny.pretrain import new_config

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
FAR_SCORES = (0.0, 0.0, -4.0, -4.0)
"""The same for heads that look for a question's words elsewhere: against what is near, which is the question itself."""
MATCH = 2.0
LIKE = 1.0
"""Scales of query and key: two tokens that match score about 8 more than others, gathered words a little more."""
PASSED_ON = 0.07
GATHERED = 0.3
COPIED = 0.1
FOUND = 0.05
POINTED_AT = 0.5
"""Scales of what heads write: what is passed on and gathered, and what is copied in layers 1, 2 and POINTING_LAYER.
What is copied last must outweigh the rest, and what was written before must not drown a token's own embedding."""
CERTAIN = 1.5
"""Weight of the last norm: logits of tied embeddings this short would else be too small to be sure of a copy."""


def new_reader(recipe: "ReadingRecipe", tokenizer: Any) -> Any:
    """An untrained Phi3ForCausalLM in the recipe's shape, laid out."""
    import torch
    from transformers import Phi3ForCausalLM

    assert recipe.heads >= HEADS and recipe.layers > POINTING_LAYER, "there is no room for the heads that are laid out"
    torch.manual_seed(recipe.seed)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": TURNING}
    model = Phi3ForCausalLM(new_config(recipe, tokenizer, rope=rope))
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
    """The directions of a model that is laid out. All embeddings share one, `shared`; what is gathered and what is
    passed on from one and two places back have their own, so that they do not blur the embeddings, which lie in
    `words`."""

    def __init__(self, model: Any, recipe: "ReadingRecipe") -> None:
        import torch

        self._model = model
        self._layers = [layer.self_attn for layer in model.model.layers]
        self._heads, self._width = recipe.heads, recipe.hidden_size
        self._size = recipe.hidden_size // recipe.heads
        self._turning = round(TURNING * self._size)
        still = self._size - self._turning
        basis = torch.linalg.qr(torch.randn(self._width, self._width))[0]
        parts = basis.split([1, still, still // 2, still // 2, self._width - 1 - still - 2 * (still // 2)])
        self._shared, self._gathered, self._one, self._two, self._words = parts

    def lay_out(self) -> None:
        """Changes the model's weights in place."""
        embedding = self._model.model.embed_tokens.weight
        embedding.copy_(embedding @ self._words.T @ self._words + SHARED * self._shared)
        self._model.model.norm.weight.fill_(CERTAIN)
        taken = self._rows(len(self._one))
        for head in range(HEADS):
            self._compare(0, head, (), (), 0.0)
        for head, (back, put) in enumerate(((1, self._one), (2, self._two))):
            self._look_back(0, head, back, PLACE_SCORES)
            self._move(0, head, taken, put, PASSED_ON)
        self._look_back(0, 2, WINDOW_BACK, WINDOW_SCORES)
        self._move(0, 2, self._rows(len(self._gathered)), self._gathered, GATHERED)
        for head in range(2):
            # Two tokens are compared, as one alone, a figure say, stands in many places.
            self._compare(1, head, (taken, self._one), (self._one, self._two), MATCH)
            self._compare(2, head, (self._gathered,), (self._gathered,), LIKE)
            self._look_back(2, head, 0, FAR_SCORES)
            for layer, scale in ((1, COPIED), (2, FOUND)):
                copied = self._rows(self._size)
                self._move(layer, head, copied, copied, scale)
        self._lay_out_pointing(taken)

    def _lay_out_pointing(self, taken: Any) -> None:
        """Half of the heads look as in layer 2, half as in layer 1; together they copy whole embeddings, in parts."""
        import torch

        parts = self._rows(len(self._words))
        for head in range(self._heads):
            part = parts[torch.arange(head * self._size, (head + 1) * self._size) % len(parts)]
            if head < self._heads // 2:
                self._compare(POINTING_LAYER, head, (self._gathered,), (self._gathered,), LIKE)
                self._look_back(POINTING_LAYER, head, 0, FAR_SCORES)
            else:
                self._compare(POINTING_LAYER, head, (taken, self._one), (self._one, self._two), MATCH)
            self._move(POINTING_LAYER, head, part, part, POINTED_AT)

    def _rows(self, count: int) -> Any:
        """`count` random orthonormal rows among the words."""
        import torch

        return torch.linalg.qr(torch.randn(len(self._words), count))[0].T @ self._words

    def _look_back(self, layer: int, head: int, back: int, scores: tuple[float, ...]) -> None:
        """Query and key read the shared part in the dimensions that know places, turned against each other by so many
        places."""
        query, key = self._query_key(layer, head)
        # A normalised token's shared part: SHARED over the root mean square of the whole.
        whole = SHARED**2 + len(self._words) * EMBEDDING_STD**2
        strength = SHARED / math.sqrt(whole / self._width)
        turns = self._turning // 2
        query[: self._turning] = 0
        key[: self._turning] = 0
        for place, score in enumerate(scores[:turns]):
            length = math.sqrt(abs(score) * math.sqrt(self._size)) / strength
            towards = math.copysign(length, score)
            angle = back * 10000.0 ** (-place / turns)
            key[place] = length * self._shared[0]
            query[place] = towards * math.cos(angle) * self._shared[0]
            query[place + turns] = -towards * math.sin(angle) * self._shared[0]

    def _compare(self, layer: int, head: int, asked: tuple[Any, ...], held: tuple[Any, ...], scale: float) -> None:
        """Query and key read these directions, in the dimensions that know no places."""
        import torch

        query, key = self._query_key(layer, head)
        query.zero_()
        key.zero_()
        for weight, parts in ((query, asked), (key, held)):
            if parts:
                rows = torch.cat(parts)
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
