"""Writes a checkpoint as the three files the engine and `transformers` read: config.json, model.safetensors (f16),
tokenizer.json; then reads them back and checks that upstream computes the same from them.

    python export.py RUN/find-224.pt ../../assets/demo
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import Sam3Model, Sam3TrackerConfig, Sam3TrackerModel

from answerers import load
from config import video_config
from scenes import Composer
from vocabulary import Phrases, make_tokenizer

LARGEST = 24_000_000  # bytes: what a program can carry along
# What the engine says of the model wherever it answers.
ORIGIN = "the demo model of sam3, trained on drawn shapes in plain colours; it knows nothing of photographs"
# Buffers that are functions of the configuration; f16 is ample, they are sines' arguments of a few turns.


def tracker_config(config):
    """Upstream's click model as a configuration of its own, from that of the video model."""
    rename = lambda part, name: {**part.to_dict(), "model_type": name}
    return Sam3TrackerConfig(
        vision_config=config.tracker_config.vision_config.to_dict(),
        prompt_encoder_config=rename(config.tracker_config.prompt_encoder_config, "sam3_tracker_prompt_encoder"),
        mask_decoder_config=rename(config.tracker_config.mask_decoder_config, "sam3_tracker_mask_decoder"),
    )


def write(state, preset, directory):
    """The files of a model of that preset, `Demo.video`'s weights in `state`; bytes of weights."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().half().contiguous() for name, tensor in state.items()}
    odd = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if odd:
        raise SystemExit(f"not finite in f16: {odd}")
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    config = video_config(preset)
    plain = {**config.to_dict(), "architectures": ["Sam3VideoModel"], "dtype": "float16", "sam3_origin": ORIGIN}
    for part in ("detector_config", "tracker_config"):  # as files before transformers 5 have it
        backbone = plain[part]["vision_config"]["backbone_config"]
        backbone["rope_theta"] = backbone.pop("rope_parameters")["rope_theta"]
    (directory / "config.json").write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")
    make_tokenizer(preset.merges, directory)
    size = (directory / "model.safetensors").stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{size} bytes of weights, {LARGEST} at most")
    return size


@torch.no_grad()
def check(model, directory):
    """Upstream's own classes on the written files against the training code in f32: largest differences."""
    preset = model.preset
    scenes = Composer(preset.size, preset.cells, seed=5)(2)
    phrases = Phrases(preset)
    row = phrases.table[0, 0, 0]
    ids, mask = phrases.ids[row][None].repeat(2, 1), phrases.mask[row][None].repeat(2, 1)
    seen, places, levels = model.look(scenes.pixels)
    text, text_mask = model.read(ids, mask)
    ours = model.detect(seen, places, text, text_mask, 1)
    detector, info = Sam3Model.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    theirs = detector.eval()(pixel_values=scenes.pixels, input_ids=ids, attention_mask=mask)
    gap = lambda a, b: float((a - b).abs().max() / b.abs().max())
    gaps = {
        "detector masks": gap(ours["masks"], theirs.pred_masks),
        "scores": gap(ours["scores"][-1], theirs.pred_logits),
        "presence": gap(ours["presence"][-1], theirs.presence_logits[:, 0]),
    }
    state = {}
    for name, tensor in model.video.state_dict().items():
        if name.startswith("detector_model.vision_encoder.backbone."):
            state[name.removeprefix("detector_model.")] = tensor
        elif name.startswith("tracker_neck."):
            state[name.replace("tracker_neck.", "vision_encoder.neck.", 1)] = tensor
        elif name.startswith("tracker_model."):
            state[name.removeprefix("tracker_model.")] = tensor
    tracker = Sam3TrackerModel._from_config(tracker_config(video_config(preset)))
    tracker.load_state_dict({name: state[name] for name in tracker.state_dict()}, strict=True)
    points = torch.tensor([[[preset.size * 0.4, preset.size * 0.6]]]).repeat(2, 1, 1).float()
    labels = torch.ones(2, 1, dtype=torch.long)
    ours, rated, _ = model.track(levels, torch.arange(2), points=points, labels=labels)
    theirs = tracker.eval()(pixel_values=scenes.pixels, input_points=points[:, None], input_labels=labels[:, None])
    gaps["click masks"] = gap(ours[:, 1:], theirs.pred_masks[:, 0])
    gaps["click ratings"] = gap(rated[:, 1:], theirs.iou_scores[:, 0])
    return gaps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("directory", type=pathlib.Path)
    args = parser.parse_args()
    model, facts = load(args.checkpoint)
    size = write(model.video.state_dict(), model.preset, args.directory)
    print(facts, f"{sum(p.numel() for p in model.video.parameters()) / 1e6:.2f} M parameters, {size / 1e6:.2f} MB")
    for name, gap in check(model, args.directory).items():
        print(f"{name}: {gap:.2e} of the largest value")
        if gap > 0.03:  # f16 weights keep 11 bits; a wrong wiring is off by orders more
            raise SystemExit(f"upstream disagrees about {name}")


if __name__ == "__main__":
    main()
