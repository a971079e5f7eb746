"""fal-client, unmodified, over TLS: fal_client_test.py PICTURE, with FAL_RUN_HOST, FAL_QUEUE_RUN_HOST, FAL_KEY, SSL_CERT_FILE."""

import base64
import sys
import time
import urllib.request

import fal_client

picture = open(sys.argv[1], "rb").read()
uri = "data:image/png;base64," + base64.b64encode(picture).decode()
arguments = {
    "image_url": uri,
    "prompt": "red circle",
    "detection_threshold": 0,
    "return_multiple_masks": True,
    "max_masks": 2,
}


def run():
    out = fal_client.run("fal-ai/sam-3/image", arguments=arguments)
    assert len(out["masks"]) == 2
    with urllib.request.urlopen(out["image"]["url"]) as reply:
        assert len(reply.read()) == out["image"]["file_size"]


def subscribe():
    seen = []
    out = fal_client.subscribe(
        "fal-ai/sam-3/image-rle", arguments=arguments, with_logs=True, on_queue_update=seen.append
    )
    assert len(out["rle"]) == 2
    assert isinstance(seen[-1], fal_client.Completed) and len(seen[-1].logs) >= 2, seen


def submit():
    handle = fal_client.submit("fal-ai/sam-3/image/embed", arguments={"image_url": uri})
    for _ in handle.iter_events(interval=0.05):
        pass
    out = handle.get()
    assert len(base64.b64decode(out["embedding_b64"])) == 4 * out["shape"][0] * out["shape"][1] * out["shape"][2]


def cancel():
    handle = fal_client.submit("fal-ai/sam-3/image", arguments=arguments)
    try:
        handle.cancel()
    except fal_client.FalClientHTTPError as error:
        assert error.status_code == 400, error


def errors():
    try:
        fal_client.run("fal-ai/sam-3/image", arguments={**arguments, "max_masks": 99})
    except fal_client.FalClientHTTPError as error:
        assert error.status_code == 422 and "max_masks" in str(error), error
    else:
        raise AssertionError("no error")
    handle = fal_client.submit("fal-ai/sam-3/image", arguments={"image_url": "nonsense"})
    try:
        handle.get()
    except fal_client.FalClientHTTPError as error:
        assert error.status_code == 422, error
    else:
        raise AssertionError("no error")


for step in [run, subscribe, submit, cancel, errors]:
    begin = time.time()
    step()
    print(f"ok {step.__name__} {time.time() - begin:.2f} s")
