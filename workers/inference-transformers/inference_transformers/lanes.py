"""Sequences that are continued together: one forward pass gives each its next logits.

The cache of a lane is padded on the left, so that every row's newest token stands in the last
column. A model whose layers keep more than keys and values (recurrent states) cannot be padded;
each of its sequences gets a lane of its own.
"""

from typing import Any, Generic, List, Protocol, Sequence, TypeVar


class Row(Protocol):
    """What a lane needs to know of a sequence."""

    #: The token to feed next.
    last: int


R = TypeVar("R", bound=Row)


def can_share(config: Any) -> bool:
    """Whether sequences of this architecture can stand in one batch, padded on the left."""
    from transformers.cache_utils import (
        DynamicCache,
        DynamicLayer,
        DynamicSlidingWindowLayer,
    )

    if getattr(config.get_text_config(), "attention_chunk_size", None):
        return False  # chunks are counted from the first column, padding or not
    try:
        layers = DynamicCache(config=config).layers
    except Exception:  # architectures with a cache class of their own
        return False
    return bool(layers) and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
    )


def new_cache(config: Any, shared: bool) -> Any:
    """An empty cache; one that will be padded keeps every token, sliding windows are masked."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache() if shared else DynamicCache(config=config)


class Lane(Generic[R]):
    """A batch of sequences with one cache; starts with one that has been read."""

    def __init__(self, row: R, cache: Any, length: int) -> None:
        self.rows: List[R] = [row]
        self.cache = cache
        #: Columns of the cache, and how many of each row's are padding.
        self.length = length
        self._padding = [0]
        self._padding_tensor: Any = None

    def inputs(self, device: Any) -> Any:
        """Arguments of the next forward pass."""
        import torch

        tokens = torch.tensor([[row.last] for row in self.rows], device=device)
        if not any(self._padding):
            return {"input_ids": tokens}
        if self._padding_tensor is None:
            self._padding_tensor = torch.tensor(self._padding, device=device).unsqueeze(1)
        columns = torch.arange(self.length + 1, device=device)
        return {
            "input_ids": tokens,
            "attention_mask": (columns >= self._padding_tensor).long(),
            "position_ids": self.length - self._padding_tensor,
        }

    def advance(self) -> None:
        """The pass has put one more column into the cache."""
        self.length += 1

    def join(self, lanes: "Sequence[Lane[R]]") -> None:
        """Takes the rows of other lanes in."""
        import torch

        everyone = [self, *lanes]
        length = max(lane.length for lane in everyone)
        for number, layer in enumerate(self.cache.layers):
            parts = [(lane.cache.layers[number], length - lane.length) for lane in everyone]
            layer.keys = torch.cat([_padded(part.keys, more) for part, more in parts])
            layer.values = torch.cat([_padded(part.values, more) for part, more in parts])
        self._padding = [
            padding + length - lane.length for lane in everyone for padding in lane._padding
        ]
        self.rows = [row for lane in everyone for row in lane.rows]
        self.length = length
        self._padding_tensor = None

    def keep(self, places: Sequence[int]) -> None:
        """Drops every other row, and the columns that are padding in all that stay."""
        import torch

        if len(places) == len(self.rows):
            return
        padding = [self._padding[place] for place in places]
        surplus = min(padding)
        for layer in self.cache.layers:
            chosen = torch.tensor(places, device=layer.keys.device)
            layer.keys = layer.keys.index_select(0, chosen)[:, :, surplus:].contiguous()
            layer.values = layer.values.index_select(0, chosen)[:, :, surplus:].contiguous()
        self._padding = [amount - surplus for amount in padding]
        self.rows = [self.rows[place] for place in places]
        self.length -= surplus
        self._padding_tensor = None


def _padded(tensor: Any, columns: int) -> Any:
    import torch

    return torch.nn.functional.pad(tensor, (0, 0, columns, 0)) if columns else tensor
