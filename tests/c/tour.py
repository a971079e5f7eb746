"""A click through ctypes: prints how many instances, pixels, and a checksum of the mask."""

import ctypes
import sys


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_float), ("y", ctypes.c_float), ("positive", ctypes.c_uint32)]


sam3 = ctypes.CDLL(sys.argv[1])
sam3.sam3_error_message.restype = ctypes.c_char_p
error = ctypes.c_void_p()


def call(name, *arguments):
    if getattr(sam3, name)(*arguments, ctypes.byref(error)) != 0:
        sys.exit(sam3.sam3_error_message(error).decode())


options, model, session = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
image, prompt, result = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
call("sam3_model_options_new", ctypes.byref(options))
call("sam3_model_options_set_threads", options, ctypes.c_uint32(2))
call("sam3_model_open", sys.argv[2].encode(), options, ctypes.byref(model))
call("sam3_session_new", model, ctypes.byref(session))
call("sam3_encode_file", session, (sys.argv[2] + "/input.png").encode(), ctypes.byref(image))
call("sam3_prompt_new_object", ctypes.byref(prompt))
call("sam3_prompt_add_points", prompt, ctypes.byref(Point(20, 20, 1)), ctypes.c_size_t(1))
prompts = (ctypes.c_void_p * 1)(prompt)
call("sam3_segment", session, image, prompts, ctypes.c_size_t(1), None, ctypes.byref(result))

size = ctypes.c_size_t()
zero = ctypes.c_uint32(0)
call("sam3_result_mask", result, zero, zero, zero, None, ctypes.c_size_t(0), ctypes.byref(size))
mask = (ctypes.c_uint8 * size.value)()
call("sam3_result_mask", result, zero, zero, zero, mask, ctypes.c_size_t(0), ctypes.byref(size))
pixels = bytes(mask)
print(sam3.sam3_result_count(result), pixels.count(255), sum(i * v for i, v in enumerate(pixels)))

sam3.sam3_result_free(result)
sam3.sam3_prompt_free(prompt)
sam3.sam3_image_free(image)
sam3.sam3_session_free(session)
sam3.sam3_model_free(model)
sam3.sam3_model_options_free(options)
