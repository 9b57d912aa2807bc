"""Parameters and buffers of a network, as views into one flat buffer.

Publishing, fetching, clipping and optimizing are then one operation on one tensor.
"""

import dataclasses
import hashlib
import math

import torch

# Copies of a parameter during initialisation: itself, noise, and the noise's Q and R.
_COPIES = 4
_ALIGNMENT = 64  # bytes: a cache line, and aligned for vector loads


@dataclasses.dataclass(frozen=True)
class _Entry:
    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # elements; keeps convolutions channels-last
    dtype: torch.dtype
    offset: int  # bytes


class ParameterLayout:
    """Place of each tensor of a module in its flat buffer.

    Trainable float32 parameters come first, with zeros as padding, so that the
    optimizer sees one vector. Frozen parameters and buffers follow.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        trainable = {
            name: p.data for name, p in module.named_parameters() if p.requires_grad
        }
        for name, tensor in trainable.items():
            if tensor.dtype != torch.float32:
                raise TypeError(f"parameter {name} is {tensor.dtype}, not float32")
        rest = {
            name: p.data for name, p in module.named_parameters() if not p.requires_grad
        }
        rest |= dict(module.named_buffers())
        self._offset = 0
        self.entries = [self._place(*item) for item in trainable.items()]
        self.num_trainable = self._offset // 4  # float32 elements, padding included
        self.entries += [self._place(*item) for item in rest.items()]
        self.num_bytes = max(self._offset, _ALIGNMENT)
        self.digest = hashlib.sha256(repr(self.entries).encode()).hexdigest()

    def _place(self, name: str, tensor: torch.Tensor) -> _Entry:
        shape, stride = tuple(tensor.shape), tuple(tensor.stride())
        entry = _Entry(name, shape, stride, tensor.dtype, self._offset)
        size = tensor.numel() * tensor.element_size()
        self._offset += -(-size // _ALIGNMENT) * _ALIGNMENT
        return entry

    def part(self, name: str) -> slice:
        """Returns the place of a submodule's parameters among the trainable ones.

        It is empty for a submodule without any, or one that the network lacks.
        """
        own = [
            entry
            for entry in self.entries
            if entry.name.startswith(f"{name}.")
            and entry.offset < 4 * self.num_trainable
        ]
        if not own:
            return slice(0)
        *_, last = own
        size = math.prod(last.shape)
        return slice(own[0].offset // 4, last.offset // 4 + size)

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Returns one view per tensor into `flat`, uint8 [num_bytes]."""
        views = []
        for entry in self.entries:
            typed = flat[entry.offset :]
            typed = typed[
                : typed.numel() // entry.dtype.itemsize * entry.dtype.itemsize
            ]
            typed = typed.view(entry.dtype)
            views.append(typed.as_strided(entry.shape, entry.stride))
        return views


def _tensors(module: torch.nn.Module, layout: ParameterLayout) -> list[torch.Tensor]:
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return [named[entry.name] for entry in layout.entries]


class FlatParameters:
    """Flat buffer of a module's parameters, and the module bound to it."""

    def __init__(self, module: torch.nn.Module, device: str = "cpu") -> None:
        self.layout = ParameterLayout(module)
        self.flat = torch.zeros(self.layout.num_bytes, dtype=torch.uint8, device=device)
        self.tensors = _tensors(module, self.layout)
        views = self.layout.views(self.flat)
        for tensor, view in zip(self.tensors, views, strict=True):
            view.copy_(tensor.data)
        self.point_at(views)

    def point_at(self, views: list[torch.Tensor]) -> None:
        """Points the module at other memory, without copying."""
        for tensor, view in zip(self.tensors, views, strict=True):
            tensor.data = view

    def are_finite(self) -> bool:
        """Returns whether all tensors are finite. Waits for the device."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors)

    @property
    def trainable(self) -> torch.Tensor:
        """The trainable parameters, float32 [num_trainable]."""
        return self.flat.view(torch.float32)[: self.layout.num_trainable]

    def attach_gradients(self, tail: int = 0) -> torch.Tensor:
        """Gives every trainable parameter a view of one flat gradient; returns it.

        It is float32 [num_trainable + tail]; the tail is the caller's. Autograd adds
        into it in place. The caller zeros it between updates.
        """
        size = self.layout.num_trainable + tail
        num_bytes = max(self.layout.num_bytes, 4 * size)
        flat = torch.zeros(num_bytes, dtype=torch.uint8, device=self.flat.device)
        for tensor, view in zip(self.tensors, self.layout.views(flat), strict=True):
            if tensor.requires_grad:
                tensor.grad = view
        return flat.view(torch.float32)[:size]
