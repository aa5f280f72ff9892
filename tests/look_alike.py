"""A device that looks like a GPU: the CPU's numbers, CUDA's rules, counts of launches and waits.

A tensor of this device holds a CPU tensor. Each operation passes one place, `_operate`, which

- refuses what CUDA refuses: tensors of two devices together, a generator of the CPU,
- counts launches: each operation that computes is a kernel that the host has to start,
- counts waits: where the host needs a number, or a shape that depends on numbers, it stands still
  until the device has done all that it was given, and the device then has nothing to do.

    with look_alike() as counts:
        x = torch.ones(3).to(DEVICE)      # a wait: a copy from memory that is not pinned
        y = x + 1                         # a launch
        rows = (y > 1).nonzero()          # two launches, and a wait: how many rows are there?
        y + torch.ones(3)                 # RuntimeError: cpu and device together

What it cannot show: CUDA's autocast, cuDNN, NCCL, the order of streams, and times.

`look_alike(float64=False)` refuses float64 too, as Apple's GPUs do.
"""

import contextlib
import sys
import unittest.mock
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from launch import PACKAGE
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from selfsup.core import transfers

DEVICE = torch.device("lazy", 0)  # of torch's names, the one whose backward needs no own thread
SHAPED_BY_NUMBERS = {
    *("nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "bincount"),
    *("equal", "repeat_interleave", "_linalg_check_errors", "_linalg_svd", "_linalg_eigh"),
}
"""Operations whose result the host has to look at before it can go on."""
NOT_LAUNCHED = {
    *("detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty"),
    *("new_empty_strided", "is_same_size", "_local_scalar_dense", "resize_", "_unsafe_view"),
}
"""Operations that compute nothing, beside views."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class Counts:
    """What happened since the last `clear`."""

    def __init__(self) -> None:
        self.launches = 0
        self.waits: Counter[str] = Counter()
        """By reason and place: "nonzero at mining/distances.py:203"."""

    def clear(self) -> None:
        self.launches = 0
        self.waits.clear()

    def wait(self, reason: str) -> None:
        """Count a wait at the innermost line of the package that is running."""
        frame = sys._getframe()
        while frame is not None and not frame.f_code.co_filename.startswith(str(PACKAGE)):
            frame = frame.f_back  # type: ignore[assignment]
        place = "outside of the package"
        if frame is not None:
            file = frame.f_code.co_filename.removeprefix(f"{PACKAGE}/")
            place = f"{file}:{frame.f_lineno}"
        self.waits[f"{reason} at {place}"] += 1


_counts = Counts()
_refused: set[torch.dtype] = set()
"""Types that the device has not."""


class OnDevice(Tensor):
    """A tensor that says it is on `DEVICE`, and holds its numbers in a CPU tensor."""

    on_cpu: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnDevice":
        wrapper: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        wrapper.on_cpu = inner
        return wrapper

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnDevice({self.on_cpu})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _operate(func, args, kwargs or {})


class Watch(TorchDispatchMode):
    """Brings operations here that name the device, such as torch.zeros(3, device=DEVICE)."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _operate(func, args, kwargs or {})


def _names_device(kwargs: Mapping[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == DEVICE.type


def _operate(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Refuse, count, and compute on the CPU."""
    leaves = tree_leaves((args, kwargs))
    here = [x for x in leaves if isinstance(x, OnDevice)]
    if not here and not _names_device(kwargs):
        return func(*args, **kwargs)
    name = func._schema.name.split("::")[1]
    if name in ("_to_copy", "copy_"):
        return _copy(func, name, args, kwargs)
    _refuse(func, args, leaves)
    _count(func, name, args)
    plain_args, plain_kwargs = _on_cpu((args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    known = {id(x.on_cpu): x for x in here}  # what an operation changed in place stays itself
    return tree_map_only(Tensor, lambda x: known[id(x)] if id(x) in known else _placed(x), result)


def _on_cpu(values: Any) -> Any:
    plain = tree_map_only(OnDevice, lambda x: x.on_cpu, values)
    return tree_map_only(torch.device, lambda _: torch.device("cpu"), plain)


def _copy(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Copy, which waits if it crosses between host and device and nobody said it need not."""
    target, source = (None, args[0]) if name == "_to_copy" else args[:2]
    from_device = isinstance(source, OnDevice)
    moves = kwargs.get("device") is not None
    to_device = _names_device(kwargs) if moves else isinstance(args[0], OnDevice)
    if from_device or to_device:
        _counts.launches += 1
    asynchronous = kwargs.get("non_blocking", False) or (name == "copy_" and len(args) > 2)
    if from_device != to_device and not (asynchronous and _of_pinned_memory()):
        _counts.wait("copy to the device" if to_device else "copy to the host")
    plain_args, plain_kwargs = _on_cpu((args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    if target is not None:
        return target
    return _placed(result) if to_device else result


def _of_pinned_memory() -> bool:
    """Whether a copy runs in `selfsup.core.transfers`, which pins: other memory is waited for."""
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith(str(PACKAGE)):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None and frame.f_code.co_filename == transfers.__file__


def _placed(x: Tensor) -> OnDevice:
    """Put a result on the device.

    Raises:
        TypeError: it has no numbers of that type, in MPS's words.
    """
    if x.dtype in _refused:
        raise TypeError(f"the device doesn't support {x.dtype}. Please use float32 instead.")
    return OnDevice(x)


def _refuse(func: Any, args: tuple[Any, ...], leaves: list[Any]) -> None:
    """Raise what CUDA would."""
    if any(isinstance(x, torch.Generator) for x in leaves):  # all of them are the CPU's
        raise RuntimeError(f"a generator of the CPU with a tensor of the device: {func}")
    indices = args[1] if func._schema.name.split("::")[1] in INDEXING else ()
    if indices and not isinstance(args[0], OnDevice):
        raise RuntimeError(f"indices of the device into a tensor of the CPU: {func}")
    allowed = {id(x) for x in indices if x is not None}  # CUDA takes indices of the CPU, and waits
    plain = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, OnDevice)]
    if any(x.ndim > 0 and id(x) not in allowed for x in plain):  # single numbers may be anywhere
        shapes = [tuple(x.shape) for x in plain]
        raise RuntimeError(f"cpu and device together: {func} with CPU tensors {shapes}")


def _count(func: Any, name: str, args: tuple[Any, ...]) -> None:
    if not func.is_view and name not in NOT_LAUNCHED:
        _counts.launches += 1
    if name == "_local_scalar_dense":
        _counts.wait("number")
    elif name in SHAPED_BY_NUMBERS:
        _counts.wait(name)
    elif name in INDEXING:
        indices = [x for x in args[1] if x is not None]
        masks = any(x.dtype in (torch.bool, torch.uint8) for x in indices)
        fills = len(args) > 2 and args[2].numel() == 1  # torch makes a fill of that, without a wait
        if masks and not fills:
            _counts.wait("rows of a mask")
        if any(not isinstance(x, OnDevice) for x in indices):
            _counts.wait("index from the host")


@contextlib.contextmanager
def look_alike(*, float64: bool = True) -> Iterator[Counts]:
    """Make the device usable in the block; yields what happens on it.

    Args:
        float64: whether the device has numbers of that type; Apple's have not.
    """
    make, make_like = torch.tensor, Tensor.new_tensor
    to_list, cast = Tensor.tolist, torch.autocast

    def tensor(data: Any, *, device: Any = None, **settings: Any) -> Tensor:
        """As torch does it: on the host, then by a copy that waits."""
        return make(data, **settings).to(device)

    def new_tensor(self: Tensor, data: Any, **settings: Any) -> Tensor:
        if not isinstance(self, OnDevice):
            return make_like(self, data, **settings)
        return make(data, dtype=settings.get("dtype", self.dtype)).to(DEVICE)

    def tolist(self: Tensor) -> Any:
        if not isinstance(self, OnDevice):
            return to_list(self)
        _counts.wait("list of numbers")
        return to_list(self.on_cpu)

    def autocast_of(kind: str, *args: Any, **settings: Any) -> Any:
        return cast("cpu" if kind == DEVICE.type else kind, *args, **settings)

    converts = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _counts.clear()
    _refused.update(() if float64 else (torch.float64,))
    patch = unittest.mock.patch.object
    try:
        with (
            patch(torch, "tensor", tensor),
            patch(Tensor, "new_tensor", new_tensor),
            patch(Tensor, "tolist", tolist),
            patch(torch, "autocast", autocast_of),
            Watch(),  # type: ignore[no-untyped-call]
        ):
            yield _counts
    finally:
        _refused.clear()
        torch.__future__.set_overwrite_module_params_on_conversion(converts)


class Accelerator:
    """What a step needs of accelerate, for one process on this device in float32."""

    device = DEVICE
    num_processes = 1
    scaler = None

    def prepare_model(self, model: Any, **_: Any) -> Any:
        return model

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Let it move all weights at once, as torch does by default on a GPU."""
        for group in optimizer.param_groups:
            group["foreach"] = True
        return optimizer

    def autocast(self, *_: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    no_sync = autocast

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def unscale_gradients(self) -> None:
        """There is no scale."""
