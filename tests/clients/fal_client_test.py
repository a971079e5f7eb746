"""fal-client, unmodified, over TLS: fal_client_test.py PICTURE, with FAL_RUN_HOST, FAL_QUEUE_RUN_HOST, FAL_KEY, SSL_CERT_FILE."""

import base64
import sys
import time
import urllib.request

import fal_client
import fal_client.auth
import fal_client.client

picture = open(sys.argv[1], "rb").read()
uri = "data:image/png;base64," + base64.b64encode(picture).decode()
arguments = {
    "image_url": uri,
    "prompt": "circle",
    "return_multiple_masks": True,
    "max_masks": 8,
}
CIRCLE, STAR, WIDTH = (150, 140), (400, 150), 800


def covers(rle, place):
    """Whether run lengths as fal writes them cover a place."""
    numbers = [int(n) for n in rle.split()]
    at = place[1] * WIDTH + place[0] + 1
    return any(start <= at < start + length for start, length in zip(numbers[::2], numbers[1::2]))


def circles(out):
    assert any(covers(one, CIRCLE) for one in out["rle"]), "the circle is found"
    assert not any(covers(one, STAR) for one in out["rle"]), "the star is none"


def run():
    out = fal_client.run("fal-ai/sam-3/image", arguments=arguments)
    assert out["masks"] and all((m["width"], m["height"]) == (800, 600) for m in out["masks"])
    with urllib.request.urlopen(out["image"]["url"]) as reply:
        assert len(reply.read()) == out["image"]["file_size"]


def subscribe():
    seen = []
    out = fal_client.subscribe(
        "fal-ai/sam-3/image-rle", arguments=arguments, with_logs=True, on_queue_update=seen.append
    )
    circles(out)
    assert isinstance(seen[-1], fal_client.Completed) and len(seen[-1].logs) >= 2, seen


def submit():
    handle = fal_client.submit("fal-ai/sam-3/image/embed", arguments={"image_url": uri})
    for _ in handle.iter_events(interval=0.05):
        pass
    out = handle.get()
    assert len(base64.b64decode(out["embedding_b64"])) == 4 * out["shape"][0] * out["shape"][1] * out["shape"][2]


def upload():
    # Hosts of uploads have no variable of the environment; these two are the client's own names for them.
    base = "https://" + fal_client.auth.FAL_RUN_HOST
    fal_client.client.REST_URL = fal_client.client.CDN_URL = base
    with_token = fal_client.upload_file(sys.argv[1])
    announced = fal_client.upload(picture, "image/png", file_name="p.png", repository="fal", fallback_repository=[])
    for url in [with_token, announced]:
        assert url.startswith(base + "/files/"), url
        circles(fal_client.run("fal-ai/sam-3-1/image-rle", arguments={**arguments, "image_url": url}))


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


for step in [run, subscribe, submit, upload, cancel, errors]:
    begin = time.time()
    step()
    print(f"ok {step.__name__} {time.time() - begin:.2f} s")
