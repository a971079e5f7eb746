"""inference-sdk, unmodified: roboflow.py http://127.0.0.1:PORT PICTURE"""

import sys

from inference_sdk import InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError

# Bounds of the heart, and the centres of others, in the picture of 800 × 600 pixels.
HEART, CIRCLE, STAR = (300, 320, 500, 525), (150, 140), (400, 150)
client = InferenceHTTPClient(api_url=sys.argv[1], api_key="any")
picture = sys.argv[2]


def embed():
    out = client.sam3_embed_image(picture)
    assert len(out["image_id"]) == 32 and out["time"] > 0, out


def inside(rings, place):
    """Whether a place is within polygons, by the crossings of a ray."""
    x, y = place
    odd = False
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1]):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                odd = not odd
    return odd


def concepts():
    x0, y0, x1, y1 = HEART
    prompts = [
        {"type": "text", "text": "circle"},
        {"type": "visual", "boxes": [{"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}], "box_labels": [1]},
    ]
    for form in ["polygon", "rle"]:
        out = client.sam3_concept_segment(picture, prompts=prompts, output_prob_thresh=0.5, format=form)
        assert [r["prompt_index"] for r in out["prompt_results"]] == [0, 1]
        found = out["prompt_results"][0]["predictions"]
        assert found and all(p["format"] == form and 0.5 < p["confidence"] <= 1 for p in found), found[:1]
        if form == "rle":
            assert found[0]["masks"]["size"] == [600, 800] and isinstance(found[0]["masks"]["counts"], str)
        else:
            assert any(inside(p["masks"], CIRCLE) for p in found) and not any(inside(p["masks"], STAR) for p in found)
            like = out["prompt_results"][1]["predictions"]
            assert any(inside(p["masks"], ((x0 + x1) / 2, (y0 + y1) / 2)) for p in like)
    both = client.sam3_concept_segment([picture, picture], prompts=prompts[:1])
    assert len(both) == 2


def objects():
    x0, y0, x1, y1 = HEART
    box = {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "width": x1 - x0, "height": y1 - y0}
    prompts = [{"points": [{"x": STAR[0], "y": STAR[1], "positive": True}]}, {"box": box}]
    out = client.sam3_visual_segment(picture, prompts=prompts)
    assert len(out["predictions"]) == 2 and out["time"] > 0, out
    star, heart = (p["masks"] for p in out["predictions"])
    assert inside(star, STAR) and not inside(star, CIRCLE)
    assert inside(heart, (box["x"], box["y"])) and not inside(heart, STAR)


def errors():
    try:
        client.sam3_concept_segment(picture, prompts=[{"type": "text", "text": "x"}], output_prob_thresh=7.0)
    except HTTPCallErrorError as error:
        assert error.status_code == 422, error
    else:
        raise AssertionError("no error")


for step in [embed, concepts, objects, errors]:
    step()
    print(f"ok {step.__name__}")
