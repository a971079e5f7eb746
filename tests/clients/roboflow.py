"""inference-sdk, unmodified: roboflow.py http://127.0.0.1:PORT PICTURE"""

import sys

from inference_sdk import InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError

client = InferenceHTTPClient(api_url=sys.argv[1], api_key="any")
picture = sys.argv[2]


def embed():
    out = client.sam3_embed_image(picture)
    assert len(out["image_id"]) == 32 and out["time"] > 0, out


def concepts():
    prompts = [
        {"type": "text", "text": "red circle"},
        {"type": "visual", "boxes": [{"x": 4, "y": 6, "width": 26, "height": 34}], "box_labels": [1]},
    ]
    for form in ["polygon", "rle"]:
        out = client.sam3_concept_segment(picture, prompts=prompts, output_prob_thresh=0.0, format=form)
        assert [r["prompt_index"] for r in out["prompt_results"]] == [0, 1]
        found = out["prompt_results"][0]["predictions"]
        assert found and all(p["format"] == form and 0 <= p["confidence"] <= 1 for p in found), found[:1]
        if form == "rle":
            assert found[0]["masks"]["size"] == [59, 83] and isinstance(found[0]["masks"]["counts"], str)
    both = client.sam3_concept_segment([picture, picture], prompts=prompts[:1], output_prob_thresh=0.0)
    assert len(both) == 2


def objects():
    prompts = [{"points": [{"x": 30, "y": 20, "positive": True}]}, {"box": {"x": 22, "y": 28, "width": 35, "height": 44}}]
    out = client.sam3_visual_segment(picture, prompts=prompts)
    assert len(out["predictions"]) == 2 and out["time"] > 0, out


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
