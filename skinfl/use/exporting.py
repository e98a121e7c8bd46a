"""A network as one file for programs without this package: TorchScript or ONNX.

Normalisation, temperature and softmax are inside: photographs go in, probabilities come out. The file takes
floats from 0 to 1 of shape (n, channels, image_size, image_size), red, green and blue or grey, resized as in
training, and gives float32 probabilities of shape (n, classes). What is written has been read back and
compared with torch on random pixels, drawn pictures and, where there are some, photographs.
"""

from __future__ import annotations

import inspect
import io
import json
import warnings
from contextlib import redirect_stdout
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from skinfl.classifier import LesionClassifier
from skinfl.data.dermoscopy import Camera, Traits, draw
from skinfl.errors import MissingExtra, ModelError, SettingsError, nearest
from skinfl.files import PathLike, write_bytes
from skinfl.models import fold_model
from skinfl.seeds import numpy_rng

#: largest difference of a probability: the same float32 arithmetic in another order
TOLERANCE = 1e-4
OPSET = 11
#: the names of the file's input and output in ONNX
INPUT, OUTPUT = "pixels", "probabilities"
#: under which name the file says what :func:`about` returns
EXTRA = "skinfl.json"
#: a small dark lesion and a large pale one
_LESIONS = (
    Traits(0.5, 0.4, 0.3, 0.3, 0.4, 0.9, 0.1, 0.3, 0.7, 0.3, 0, 0, 0, 0, 0, 0, 1),
    Traits(0.9, 0.8, 0.6, 0.7, 0.2, 0.2, 0.6, 0.6, 0, 0, 0.5, 0.8, 0, 0, 0.6, 0, 2),
)


class Exported(NamedTuple):
    """``difference``: the largest of a probability from torch's, None where nothing could run the file.

    ``checked``: in words, on what it was compared. ``note``: what the user should know, or empty.
    """

    format: str
    difference: Optional[float]
    checked: str
    note: str = ""


class Diagnosis(nn.Module):
    """Pixels, floats 0 to 1 of shape (n, channels, size, size), to probabilities of shape (n, classes)."""

    def __init__(self, classifier: LesionClassifier):
        super().__init__()
        # DO-Conv's two tensors become the one that they stand for.
        self.classifier = fold_model(classifier).cpu().eval()
        self.temperature = float(classifier.temperature)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 probabilities."""
        return torch.softmax(self.classifier(pixels) / self.temperature, dim=1)


def export(
    classifier: LesionClassifier, out: PathLike, format: str, photographs: Sequence[np.ndarray] = ()
) -> Exported:
    """Write the network to ``out``; ``format`` is ``torchscript`` or ``onnx``.

    ``photographs``: pixels as :meth:`~skinfl.classifier.LesionClassifier.pixels` gives them, to check the
    file on beside random and drawn ones. The file also holds, as JSON, what :func:`about` returns.

    Raises :class:`~skinfl.errors.ModelError` for a network that cannot be exported, or whose file gives
    other probabilities (nothing is written then), and :class:`~skinfl.errors.MissingExtra` for ONNX without
    its package.
    """
    if format not in FORMATS:
        raise SettingsError(f"format = {format!r}: {nearest(format, FORMATS)}")
    pixels = _examples(classifier, photographs)
    module = Diagnosis(classifier).eval()
    with torch.no_grad():
        expected = torch.softmax(
            classifier(pixels.to(classifier.mean.device)) / classifier.temperature, dim=1
        )
    content, answer, note = FORMATS[format](module, pixels, about(classifier))
    what = f"{len(pixels) - len(photographs)} random and drawn pictures"
    checked = f"{what} and {len(photographs)} photographs" if len(photographs) else what
    difference = None
    if answer is not None:
        # one alone, then all: a file that takes batches of one size only is of little use
        found = np.concatenate([answer(pixels[:1].numpy()), answer(pixels[1:].numpy())])
        difference = float(np.abs(found - expected.cpu().numpy()).max())
        if not difference <= TOLERANCE:
            raise ModelError(
                f"the exported network's probabilities differ from torch's by {difference:.2g}, so nothing "
                "is written: try the other --format"
            )
    write_bytes(out, content)
    return Exported(format, difference, checked, note)


def about(classifier: LesionClassifier) -> Dict[str, Any]:
    """Return what a program must know of the file: its input, its classes."""
    size = classifier.image_size
    return {
        "input": f"float32 0..1, (n, {classifier.channels}, {size}, {size})",
        "output": f"probabilities, (n, {len(classifier.classes)})",
        "image_size": size,
        "channels": classifier.channels,
        "classes": [dict(each._asdict()) for each in classifier.class_info],
    }


def _examples(classifier: LesionClassifier, photographs: Sequence[np.ndarray]) -> torch.Tensor:
    rng = numpy_rng(0, "export")
    size, channels = classifier.image_size, classifier.channels
    camera = Camera((1.0, 1.0, 1.0), 0.1, False, 0.01)
    drawn = [classifier.pixels(draw(traits, camera, 0.1, rng, 96)) for traits in _LESIONS]
    pixels = np.stack([*drawn, *photographs]).astype(np.float32) / 255
    noise = rng.random((4, channels, size, size)).astype(np.float32)
    noise[0], noise[1] = 0, 1
    return torch.from_numpy(np.concatenate([noise, pixels.transpose(0, 3, 1, 2)]))


#: runs the written file on an array
_Answer = Callable[[np.ndarray], np.ndarray]
_Made = Tuple[bytes, Optional[_Answer], str]


def _torchscript(module: nn.Module, pixels: torch.Tensor, told: Dict[str, Any]) -> _Made:
    with torch.no_grad(), warnings.catch_warnings():
        # Sizes that are compared while it is traced are always the same: the input's is fixed.
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(module, pixels[:2], check_trace=False)
        except Exception as error:  # a network of the user's own may do anything
            raise ModelError(f"the network cannot be traced ({_first_line(error)})") from error
        buffer = io.BytesIO()
        extra = _extra_files({EXTRA: json.dumps(told, ensure_ascii=False)})
        torch.jit.save(traced, buffer, _extra_files=extra)
        loaded = torch.jit.load(io.BytesIO(buffer.getvalue()), map_location="cpu")

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = loaded(torch.from_numpy(images)).numpy()
            return found

    return buffer.getvalue(), answer, ""


def _extra_files(files: Dict[str, str]) -> Any:
    """Return texts as torch takes them to lie in the file; old versions have a type of their own for it."""
    make = getattr(torch._C, "ExtraFilesMap", None)
    if make is None:
        return files
    found = make()
    for name, text in files.items():
        found[name] = text
    return found


def _onnx(module: nn.Module, pixels: torch.Tensor, told: Dict[str, Any]) -> _Made:
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtra("onnx", "export", "--format onnx") from None
    buffer = io.BytesIO()
    options: Dict[str, Any] = {
        "input_names": [INPUT],
        "output_names": [OUTPUT],
        "dynamic_axes": {INPUT: {0: "n"}, OUTPUT: {0: "n"}},
        "opset_version": OPSET,
    }
    write: Any = torch.onnx.export  # the types of newer versions know their newer exporter only
    if "dynamo" in inspect.signature(write).parameters:
        options["dynamo"] = False  # the newer exporter needs packages of its own
    # where it fails it prints the whole network
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            write(module, pixels[:2], buffer, **options)
        except Exception as error:
            raise ModelError(
                f"this version of torch ({torch.__version__}) cannot write the network as ONNX "
                f"({_first_line(error)}): use --format torchscript, or a newer torch"
            ) from error
    model = onnx.load_model_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, {EXTRA: json.dumps(told, ensure_ascii=False)})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    try:
        import onnxruntime
    except ModuleNotFoundError:
        note = "not compared with torch: onnxruntime is not installed (pip install 'skinfl[export]')"
        return content, None, note
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: session.run([OUTPUT], {INPUT: images})[0], ""


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :300
    ]


FORMATS: Dict[str, Callable[[nn.Module, torch.Tensor, Dict[str, Any]], _Made]] = {
    "torchscript": _torchscript,
    "onnx": _onnx,
}
