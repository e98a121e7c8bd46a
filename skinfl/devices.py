"""Where networks compute: on which device, how precisely, and what is done where its memory runs out.

All of it is one machine's own affair: hospitals may differ in it, and a run goes on elsewhere. The same seed
gives the same model on one kind of device with the same versions; between devices sums are taken in
another order, so that results differ in their last bits and, after many steps, in more.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any, ContextManager, Iterator, Optional

from skinfl.errors import SettingsError, TrainingError

# torch is imported where it is needed: settings and a hospital's folder check names only
if TYPE_CHECKING:
    import torch
    from torch import nn

DEVICES = ("auto", "cpu", "cuda", "mps")
AMP = ("auto", "off", "bf16", "fp16")
#: below so many pixels a side, a step is all small kernels, which casting makes more of
_LEAST_PIXELS_FOR_AMP = 64
#: what torch and its libraries say of a device, or a computer, that has no memory left
_NO_MEMORY = re.compile("out of memory|ALLOC_FAILED|can't allocate memory|not enough memory", re.IGNORECASE)

#: what torch says of an operation that gives other last bits each time; of cuBLAS it names none
_NOT_DETERMINISTIC = re.compile(
    r"(\S+) does not have a deterministic implementation|is not deterministic because"
)


class Compute:
    """Where a network trains.

    ``device``: as torch writes it. ``precision``: ``"bf16"`` or ``"fp16"`` for products and convolutions on
    the way forward, None for float32 throughout; weights, their sums and statistics are float32 in any
    case. ``smaller``: whether a batch that does not fit the device's memory is computed in parts. ``part``:
    images in such a part, once it was needed.
    """

    def __init__(self, device: str, precision: Optional[str] = None, *, smaller: bool = False):
        import torch

        self.device: torch.device = torch.device(device)
        self.precision = precision
        self.smaller = smaller
        self.part: Optional[int] = None

    @contextlib.contextmanager
    def place(self, model: nn.Module) -> Iterator[None]:
        """Have a network on the device inside the block, and in the computer's memory after it.

        So hospitals that take turns on one device need the memory of one network. Raises
        :class:`~skinfl.errors.TrainingError` where a part of it is not deterministic there and has to be.
        """
        elsewhere = self.device.type != "cpu"  # PySyft's tensors would not be moved onto themselves
        if elsewhere:
            model.to(self.device)
        try:
            yield
        except RuntimeError as error:
            operation = _NOT_DETERMINISTIC.search(str(error))
            if operation is None:
                raise
            name = operation.group(1) or "a product of cuBLAS"
            raise TrainingError(
                f"{self.description}: {name} has no deterministic form there: use --no-deterministic, or "
                "another network or --device"
            ) from error
        finally:
            if elsewhere:
                model.to("cpu")

    def autocast(self) -> ContextManager[Any]:
        """Return the context of the forward pass."""
        if self.precision is None:
            return contextlib.nullcontext()
        import torch

        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def scaler(self) -> Optional[Any]:
        """Return what keeps small gradients from vanishing in float16; None where none is needed."""
        if self.precision != "fp16":
            return None
        import torch

        # moved and given the device's name in torch 2.3
        if hasattr(torch.amp, "GradScaler"):
            return torch.amp.GradScaler(self.device.type)
        return torch.cuda.amp.GradScaler()

    def release(self) -> None:
        """Give memory that is kept for later back to the device."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def description(self) -> str:
        """The device and precision in words."""
        import torch

        name = str(self.device)
        if self.device.type == "cuda":
            name += f" ({torch.cuda.get_device_name(self.device)})"
        return name if self.precision is None else f"{name}, {self.precision}"


def image_layout(device: torch.device) -> Any:
    """Return the memory format in which convolutions on a device take images fastest.

    With channels last a processor trains EfficientNet-Lite0 1.5 times as fast, since torch 1.8; before it,
    torch copied such images. Networks need not know, but for those that ask of a tensor's ``view`` what only
    ``reshape`` can do.
    """
    import torch

    major, minor = torch.__version__.split(".")[:2]
    last = device.type == "cpu" and (int(major), int(minor)) >= (1, 8)
    return torch.channels_last if last else torch.contiguous_format


def parse(name: Any) -> str:
    """Return the name of a device as settings keep it; torch is not asked whether it is there."""
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", name):
        raise SettingsError(f"device = {name!r}: must be one of {', '.join(DEVICES)}, or cuda:1 and so on")
    return name


def compute_on(
    device: str = "auto",
    amp: str = "auto",
    *,
    image_size: int,
    deterministic: bool = True,
    smaller: bool = False,
) -> Compute:
    """Return where to compute; ``auto`` is CUDA where there is one, else the processor.

    ``amp``: ``auto`` is bfloat16 where a CUDA device computes with it and images have 64 pixels or more.
    ``deterministic`` has CUDA choose only what gives the same numbers each time; it holds for the process.

    Raises :class:`~skinfl.errors.SettingsError` for a device that is not there, and for a precision that it
    lacks.
    """
    found = _device(device)
    precision = _precision(found, amp, image_size)
    if found.startswith("cuda"):
        _set_deterministic(deterministic)
    return Compute(found, precision, smaller=smaller)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of torch or numpy is that there is no memory left."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
    )


def _device(name: str) -> str:
    import torch

    cuda = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if cuda else "cpu"
    kind, _, index = parse(name).partition(":")
    if kind == "cuda":
        if not cuda:
            why = "torch finds no GPU" if torch.version.cuda else "this torch is built without it"
            raise SettingsError(f"device {name} is not there: {why}; use --device cpu, or auto")
        count = torch.cuda.device_count()
        if index and int(index) >= count:
            raise SettingsError(f"device {name} is not there: the last one is cuda:{count - 1}")
    if kind == "mps":
        mps = getattr(torch.backends, "mps", None)  # since torch 1.12
        if mps is None or not mps.is_available():
            raise SettingsError(
                "device mps is not there: it needs an Apple GPU and torch 1.12; use --device cpu, or auto"
            )
    return name


def _precision(device: str, amp: str, image_size: int) -> Optional[str]:
    import torch

    if amp == "off":
        return None
    # torch.autocast came with 1.10, and with it bfloat16
    able = device.startswith("cuda") and hasattr(torch, "autocast")
    bfloat16 = able and torch.cuda.get_device_capability(torch.device(device))[0] >= 8
    if amp == "auto":
        return "bf16" if bfloat16 and image_size >= _LEAST_PIXELS_FOR_AMP else None
    if not able:
        raise SettingsError(f"amp = {amp!r} needs a CUDA device and torch 1.10: use --amp off, or auto")
    if amp == "bf16" and not bfloat16:
        raise SettingsError("amp = 'bf16' needs a GPU of compute capability 8: use --amp fp16, or off")
    return amp


def _set_deterministic(on: bool) -> None:
    import torch

    if on:
        # read when cuBLAS starts, which is later than this
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = on
    torch.backends.cudnn.benchmark = not on
    if hasattr(torch, "use_deterministic_algorithms"):  # since torch 1.8
        torch.use_deterministic_algorithms(on)
