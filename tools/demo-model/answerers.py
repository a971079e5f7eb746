"""Who answers the test set: the training code, `transformers`, or this project's engine. All three take the same 8-bit
pictures, phrases, clicks and boxes in pixels of the picture, and give masks of the picture's size.

An answerer has `look(pixels)` for the picture [H, W, 3] that the next questions are about, `side` (of the model's own
masks, M), and

- `concepts(questions, threshold)`: for each (text or None, box or None) all `Found` scored above the threshold;
- `objects(prompts, three)`: for each `Shown` its `Found`, three alternatives or one.
"""

import dataclasses
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import (
    CLIPTokenizer,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    Sam3TrackerModel,
    Sam3TrackerProcessor,
)

from clicks import nowhere
from config import PRESETS, at_size
from model import Demo
from vocabulary import encode, make_tokenizer


@dataclasses.dataclass
class Found:
    """Answers to one question, best first for concepts: scores [n], masks [n, H, W]; of objects, logits [n, M, M]."""

    scores: np.ndarray
    masks: np.ndarray
    logits: np.ndarray | None = None


@dataclasses.dataclass
class Shown:
    """One object: clicks (x, y) with labels 1 or 0, a box of corners, mask logits [M, M]; what is not given is None."""

    points: list | None = None
    labels: list | None = None
    box: tuple | None = None
    logits: np.ndarray | None = None


def load(path, device="cpu"):
    """The averaged model of a checkpoint, in evaluation mode, and the checkpoint's facts."""
    saved = torch.load(path, map_location=device, weights_only=False)
    model = Demo(at_size(PRESETS[saved["preset"]], saved["size"])).to(device)
    model.load_state_dict(saved["ema"])
    return model.eval(), {k: saved.get(k) for k in ("preset", "size", "images", "minutes", "most", "span")}


def image_processor(size):
    side = {"height": size, "width": size}
    return Sam3ImageProcessor(size=side, mask_size={k: v // 2 for k, v in side.items()})


def stretched(maps, shape):
    """Maps [n, M, M] at the picture's size, [n, H, W]."""
    return F.interpolate(maps[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]


class Training:
    """`Demo`, the network as it is trained, with the averaged weights of a checkpoint in f32."""

    def __init__(self, checkpoint, device="cpu"):
        self.model, self.facts = load(checkpoint, device)
        self.device, self.side = device, self.model.preset.cells
        self.size = self.model.preset.size
        self.images = image_processor(self.size)
        self.tokenizer = make_tokenizer(self.model.preset.merges)

    @torch.no_grad()
    def look(self, pixels):
        self.shape = pixels.shape[:2]
        values = self.images(Image.fromarray(pixels), return_tensors="pt").pixel_values.to(self.device)
        self.seen, self.places, self.levels = self.model.look(values)

    @torch.no_grad()
    def concepts(self, questions, threshold):
        height, width = self.shape
        answers = []
        for text, box in questions:
            ids, mask = (t.to(self.device) for t in encode(self.tokenizer, [text or "visual"]))
            prompt, valid = self.model.read(ids, mask)
            if box is not None:
                x0, y0, x1, y1 = box
                boxes = torch.tensor(
                    [[[(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]]]
                )
                label, first = torch.ones(1, 1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
                arguments = (t.to(self.device) for t in (boxes, label, first))
                shown, there = self.model.exemplars(self.seen, self.places, *arguments)
                prompt, valid = torch.cat([prompt, shown], 1), torch.cat([valid, there], 1)
            out = self.model.detect(self.seen, self.places, prompt, valid, 1)
            scores = out["scores"][-1, 0].sigmoid() * out["presence"][-1].sigmoid()
            keep = (scores > threshold).nonzero()[:, 0]
            keep = keep[scores[keep].argsort(descending=True, stable=True)]
            masks = stretched(out["masks"][0, keep].sigmoid(), self.shape) > 0.5
            answers.append(Found(scores[keep].cpu().numpy(), masks.cpu().numpy()))
        return answers

    @torch.no_grad()
    def objects(self, prompts, three):
        height, width = self.shape
        scale = torch.tensor([self.size / width, self.size / height])
        answers = []
        for p in prompts:
            to = lambda t: t.to(self.device)
            asked = {}
            if p.points:
                asked["points"] = to((torch.tensor(p.points).float() * scale)[None])
                asked["labels"] = to(torch.tensor([p.labels]))
            if p.box is not None:
                asked["boxes"] = to(torch.tensor(p.box).float() * scale.repeat(2))[None]
            if p.logits is not None:
                asked["masks"] = to(torch.from_numpy(p.logits))[None, None]
                if len(asked) == 1:
                    asked.update(nowhere(1, self.device))
            masks, ratings, _ = self.model.track(self.levels, torch.zeros(1, dtype=torch.long), **asked)
            if three:
                masks, ratings = masks[:, 1:], ratings[:, 1:]
            else:  # upstream doubts a single mask with a wide rim, and takes the best of the three then
                head = self.model.tracker.mask_decoder
                masks, ratings = (
                    t[:, 0] for t in head._dynamic_multimask_via_stability(masks[:, None], ratings[:, None])
                )
            found = stretched(masks[0], self.shape) > 0
            answers.append(Found(ratings[0].cpu().numpy(), found.cpu().numpy(), masks[0].cpu().numpy()))
        return answers


class Transformers:
    """Upstream's models and processors on the exported files, in f32."""

    def __init__(self, directory, device="cpu"):
        self.detector, self.tracker = (self.read(kind, directory).to(device) for kind in (Sam3Model, Sam3TrackerModel))
        config = self.detector.config.vision_config.backbone_config
        self.device, self.side = device, 4 * (config.image_size // config.patch_size)
        images = image_processor(config.image_size)
        self.processor = Sam3Processor(images, CLIPTokenizer.from_pretrained(directory))
        self.tracker_processor = Sam3TrackerProcessor(images)

    @staticmethod
    def read(kind, directory):
        model, info = kind.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
        if info["missing_keys"] or info["mismatched_keys"]:
            raise SystemExit(f"{directory}: {kind.__name__} lacks {info}")
        return model.eval()

    @torch.no_grad()
    def look(self, pixels):
        self.picture, self.sizes = Image.fromarray(pixels), [pixels.shape[:2]]
        values = self.processor.image_processor(self.picture, return_tensors="pt").pixel_values.to(self.device)
        self.seen = self.detector.get_vision_features(pixel_values=values)
        self.embedded = self.tracker.get_image_embeddings(values)

    @torch.no_grad()
    def concepts(self, questions, threshold):
        answers = []
        for text, box in questions:
            boxes = None if box is None else [[list(map(float, box))]]
            inputs = self.processor(text=text, input_boxes=boxes, original_sizes=self.sizes, return_tensors="pt")
            inputs = {k: v.to(self.device) for k, v in inputs.items() if k != "original_sizes"}
            out = self.detector(vision_embeds=self.seen, **inputs)
            found = self.processor.post_process_instance_segmentation(
                out, threshold=threshold, mask_threshold=0.5, target_sizes=self.sizes
            )[0]
            order = found["scores"].argsort(descending=True, stable=True)
            masks = found["masks"][order].bool().reshape(-1, *(self.sizes[0]))
            answers.append(Found(found["scores"][order].cpu().numpy(), masks.cpu().numpy()))
        return answers

    @torch.no_grad()
    def objects(self, prompts, three):
        answers = []
        for p in prompts:
            inputs = self.tracker_processor(
                original_sizes=self.sizes,
                input_points=[[[list(map(float, point)) for point in p.points]]] if p.points else None,
                input_labels=[[p.labels]] if p.points else None,
                input_boxes=None if p.box is None else [[list(map(float, p.box))]],
                return_tensors="pt",
            )
            inputs = {k: v.to(self.device) for k, v in inputs.items() if k != "original_sizes"}
            if p.logits is not None:
                inputs["input_masks"] = torch.from_numpy(p.logits)[None, None].to(self.device)
            out = self.tracker(image_embeddings=list(self.embedded), multimask_output=three, **inputs)
            masks = self.tracker_processor.post_process_masks(out.pred_masks, self.sizes)[0]
            answers.append(
                Found(out.iou_scores[0, 0].cpu().numpy(), masks[0].cpu().numpy(), out.pred_masks[0, 0].cpu().numpy())
            )
        return answers


class Engine:
    """The `sam3` program on the exported files: a process for each kind of question."""

    def __init__(self, program, directory, device="cpu", threads=1):
        program, directory = pathlib.Path(program).resolve(), pathlib.Path(directory).resolve()
        self.command = [str(program), "segment", "picture.png", "--model", str(directory)]
        self.command += ["--device", device, "--threads", str(threads), "--json", "-"]
        told = json.loads((directory / "config.json").read_text())
        vision = told["detector_config"]["vision_config"]["backbone_config"]
        self.side, self.folder = 4 * (vision["image_size"] // vision["patch_size"]), tempfile.TemporaryDirectory()

    def look(self, pixels):
        self.shape = pixels.shape[:2]
        Image.fromarray(pixels).save(self.at("picture.png"), compress_level=1)

    def at(self, name):
        return pathlib.Path(self.folder.name) / name

    def run(self, arguments, prompts):
        """`Found` without logits for each of the call's prompts."""
        from pycocotools import mask as coco  # only the engine's answers need it

        done = subprocess.run(self.command + arguments, cwd=self.folder.name, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(self.command + arguments)}: {done.stderr}")
        told = json.loads(done.stdout)
        labels = list(told["presence"])
        if len(labels) != prompts:
            raise SystemExit(f"expected answers to {prompts} prompts, found {labels}")
        answers = []
        for label in labels:
            mine = [i for i in told["instances"] if i["prompt"] == label]
            masks = [coco.decode(i["segmentation"]).astype(bool) for i in mine]
            scores = np.array([i["score"] for i in mine], np.float32)
            answers.append(Found(scores, np.stack(masks) if masks else np.zeros((0, *self.shape), bool)))
        return answers

    def concepts(self, questions, threshold):
        """Questions without words need a call each: an exemplar belongs to the words before it."""
        answers = [None] * len(questions)
        spoken = [i for i, (text, _) in enumerate(questions) if text is not None]
        calls = [spoken] * bool(spoken) + [[i] for i in range(len(questions)) if i not in spoken]
        for call in calls:
            arguments = ["--threshold", str(threshold)]
            for text, box in (questions[i] for i in call):
                arguments += [] if text is None else ["--text", text]
                arguments += [] if box is None else ["--exemplar", ",".join(map(str, box))]
            for i, found in zip(call, self.run(arguments, len(call))):
                answers[i] = found
        return answers

    def objects(self, prompts, three):
        if not prompts:
            return []
        arguments = ["--multimask"] * three + ["--tensors", "out.safetensors"]
        for i, p in enumerate(prompts):
            arguments += ["--object"] * (i > 0)
            for (x, y), label in zip(p.points or [], p.labels or []):
                arguments += ["--point", f"{x},{y}" + ("" if label else ",-")]
            arguments += [] if p.box is None else ["--box", ",".join(map(str, p.box))]
            if p.logits is not None:
                logits = np.ascontiguousarray(p.logits, np.float32)[None, None, None]
                save_file(
                    dict(pred_masks=logits, iou_scores=np.ones((1, 1, 1), np.float32)), self.at(f"{i}.safetensors")
                )
                arguments += ["--mask", f"{i}.safetensors"]
        answers = self.run(arguments, len(prompts))
        raw = load_file(self.at("out.safetensors"))
        for i, found in enumerate(answers):
            name = f"{i}." if len(prompts) > 1 else ""
            order = np.argsort(-raw[name + "iou_scores"][0, 0], kind="stable")  # the JSON has the best first
            if not np.allclose(raw[name + "iou_scores"][0, 0][order], found.scores):
                raise SystemExit(f"ratings {raw[name + 'iou_scores']} beside scores {found.scores}")
            found.logits = raw[name + "pred_masks"][0, 0][order]
        return answers
