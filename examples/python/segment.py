"""Python through ctypes, which comes with Python: finds what a phrase names, says what it found, writes the masks.

    SAM3_LIBRARY=PREFIX/lib/libsam3.so.0.1 python3 segment.py CHECKPOINT|demo PICTURE PHRASE [FOLDER]
"""

import ctypes
import os
import pathlib
import sys
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p


class Box(ctypes.Structure):
    _fields_ = [(name, c_float) for name in ("x0", "y0", "x1", "y1")]


class Rect(ctypes.Structure):
    _fields_ = [(name, c_uint32) for name in ("x", "y", "width", "height")]


class Instance(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32), ("prompt", c_uint32), ("score", c_float), ("predicted_iou", c_float), ("stability", c_float),
        ("bbox", Box), ("bounds", Rect), ("reserved", c_uint32), ("area", c_uint64),
    ]  # fmt: skip


class MaskView(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32), ("format", c_uint32), ("width", c_uint32), ("height", c_uint32), ("stride", c_uint64),
        ("data", POINTER(c_uint8)),
    ]  # fmt: skip


library = ctypes.CDLL(os.environ.get("SAM3_LIBRARY", "libsam3.so.0.1"))
library.sam3_status_name.restype = library.sam3_error_message.restype = c_char_p
library.sam3_result_count.restype = c_uint32


def declare(name, *arguments):
    """A function that fails with an error as its last argument: here, with an exception."""
    function = getattr(library, name)
    function.restype, function.argtypes = c_int32, [*arguments, POINTER(c_void_p)]

    def call(*values):
        error = c_void_p()
        status = function(*values, byref(error))
        if status != 0:
            message = library.sam3_error_message(error).decode()
            library.sam3_error_free(error)
            raise RuntimeError(f"{library.sam3_status_name(status).decode()}: {message}")

    return call


def free(name):
    function = getattr(library, name)
    function.restype, function.argtypes = None, [c_void_p]
    return function


handle = POINTER(c_void_p)
model_open = declare("sam3_model_open", c_char_p, c_void_p, handle)
model_open_demo = declare("sam3_model_open_demo", c_void_p, handle)
session_new = declare("sam3_session_new", c_void_p, handle)
encode_file = declare("sam3_encode_file", c_void_p, c_char_p, handle)
prompt_new_concept = declare("sam3_prompt_new_concept", c_char_p, handle)
segment = declare("sam3_segment", c_void_p, c_void_p, handle, c_size_t, c_void_p, handle)
result_instance = declare("sam3_result_instance", c_void_p, c_uint32, POINTER(Instance))
result_mask_view = declare("sam3_result_mask_view", c_void_p, c_uint32, c_uint32, c_uint32, POINTER(MaskView))

if len(sys.argv) not in (4, 5):
    sys.exit(__doc__)
model, session, image, prompt, result = (c_void_p() for _ in range(5))
try:
    if sys.argv[1] == "demo":
        model_open_demo(None, byref(model))  # the model in the library
    else:
        model_open(os.fsencode(sys.argv[1]), None, byref(model))  # once
    session_new(model, byref(session))  # once per thread
    encode_file(session, os.fsencode(sys.argv[2]), byref(image))  # once per picture
    prompt_new_concept(sys.argv[3].encode(), byref(prompt))
    segment(session, image, (c_void_p * 1)(prompt), 1, None, byref(result))  # once per question
    for i in range(library.sam3_result_count(result)):
        found, mask = Instance(size=ctypes.sizeof(Instance)), MaskView(size=ctypes.sizeof(MaskView))
        result_instance(result, i, byref(found))
        result_mask_view(result, i, 0, 0, byref(mask))  # SAM3_MASK_U8, SAM3_SPACE_PICTURE
        box = " ".join(f"{v:.1f}" for v in (found.bbox.x0, found.bbox.y0, found.bbox.x1, found.bbox.y1))
        print(f"{i:3}: score {found.score:.3f}, {found.area} pixels of {mask.width}x{mask.height}, box {box}")
        if len(sys.argv) == 5:
            pixels = ctypes.string_at(mask.data, mask.stride * mask.height)  # 255 inside, 0 outside
            picture = f"P5 {mask.width} {mask.height} 255\n".encode() + pixels
            pathlib.Path(sys.argv[4], f"mask-{i}.pgm").write_bytes(picture)
except RuntimeError as e:
    sys.exit(str(e))
finally:
    # In any order; NULL is fine.
    free("sam3_result_free")(result)
    free("sam3_prompt_free")(prompt)
    free("sam3_image_free")(image)
    free("sam3_session_free")(session)
    free("sam3_model_free")(model)
