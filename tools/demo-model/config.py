"""The architecture of the demo model: one `Sam3VideoConfig` per preset, every dimension with its reason.

The engine and `transformers` read the same files, so this is the published SAM 3 at a reduced size and nothing else.
Bounds set from outside: at most 12 M parameters (24 MB in f16, embedded in the program), a picture and a phrase in
under a second on two CPU cores. The engine wants the neck's four levels (4, 2, 1, 1/2), a neck width divisible by 8
(group norm) and by its heads, and a ViT head width divisible by 4 (axial rotary positions).
"""

import copy
import dataclasses

from transformers import Sam3VideoConfig


@dataclasses.dataclass(frozen=True)
class Preset:
    """Dimensions of one model; `size` is the only one that training changes (see `fit` in train.py)."""

    # Picture side and patch side. What a small ViT can tell of an outline depends on the tokens across it, not on the
    # pixels within a token: with 14-pixel patches shapes stayed near chance for 20,000 pictures (LOG.md), and work per
    # token is the same. Masks have 4 cells per patch, 2 pixels a cell at patch 8.
    size: int
    patch: int = 8
    # Window side of the ViT in tokens, half of the final grid: a picture of half the side is one window, so training
    # can start there at a quarter of the cost, at the same scale of object to patch.
    window: int = 12
    # 12 * width^2 parameters a layer: 0.44 M at 192. Rotary pairs along two axes want head widths of 4; 192 / 6 = 32.
    vit: int = 192
    vit_layers: int = 6
    vit_heads: int = 6
    global_layers: tuple = (2, 5)  # every third layer and the last, as upstream's 7, 15, 23, 31 of 32
    # Width of neck, detector and tracker. Convolutions at the finest level cost width^2 per cell and prompt and are
    # half of all work at 96; the tracker's pixels have width / 8 = 12 channels, below that masks blur.
    width: int = 96
    heads: int = 4  # 24 per head; box bias is per head, four let one look at each side
    ffn: int = 384
    encoder_layers: int = 2
    decoder_layers: int = 3
    geometry_layers: int = 1
    queries: int = 25  # a 5 x 5 grid of starting boxes; scenes hold at most 12 objects
    roi: int = 5  # pooled cells per exemplar box side; weights grow with its square
    # Text: the first 7,678 merges of CLIP (they are ordered by frequency) and 512 bytes and 2 marks make 8,192 tokens.
    merges: int = 7678
    text: int = 128
    text_layers: int = 2
    text_heads: int = 4
    context: int = 32  # as published; phrases are cut there
    # Tracker.
    tracker_heads: int = 4
    tracker_ffn: int = 256
    iou_hidden: int = 96

    @property
    def grid(self):
        """Tokens per side."""
        return self.size // self.patch

    @property
    def cells(self):
        """Mask cells per side."""
        return 4 * self.grid

    @property
    def vocabulary(self):
        return 512 + self.merges + 2


PRESETS = {
    # Coloured shapes, trained on CPU cores: 30 x 30 tokens, masks of 120 x 120 on 240 pixels, for outlines are bound by the
    # side (LOG.md, run 14) and a picture at 336 costs four times as much. Half the width costs a third of the time
    # per picture, and the number of pictures is what limits a CPU run.
    "shapes": Preset(size=240, vit=128, vit_heads=4, width=64, ffn=256, text=64, tracker_ffn=128, iou_hidden=64),
    # Shapes and several hundred named things, for a GPU: more pixels for drawings, more layers for more names.
    "full": Preset(size=336, patch=14, vit_layers=8, global_layers=(3, 7), encoder_layers=3, text=192, queries=25),
    # For rehearsing every script in a minute.
    "toy": Preset(
        size=64,
        window=4,
        vit=48,
        vit_layers=2,
        vit_heads=4,
        global_layers=(1,),
        width=32,
        ffn=64,
        encoder_layers=1,
        decoder_layers=2,
        text=32,
        tracker_ffn=64,
        iou_hidden=32,
        queries=9,
    ),
}


def at_size(preset, size):
    """The same model for another picture side, a whole number of patches."""
    if size % preset.patch:
        raise ValueError(f"picture side {size} is not a multiple of the patch side {preset.patch}")
    return dataclasses.replace(preset, size=size)


def video_config(p):
    """The `Sam3VideoConfig` of a preset."""
    grid = p.grid
    vision = dict(
        backbone_config=dict(
            model_type="sam3_vit_model",
            hidden_size=p.vit,
            intermediate_size=4 * p.vit,
            num_hidden_layers=p.vit_layers,
            num_attention_heads=p.vit_heads,
            image_size=p.size,
            patch_size=p.patch,
            window_size=p.window,
            global_attn_indexes=list(p.global_layers),
            # Positions cover the whole picture, no tiling: a small ViT has no depth to spare for telling tiles apart.
            pretrain_image_size=p.size,
        ),
        fpn_hidden_size=p.width,
        backbone_feature_sizes=[[k * grid, k * grid] for k in (4, 2, 1)],
    )
    # No dropout anywhere: scenes are drawn afresh for every step, so nothing can be learned by heart.
    stack = dict(hidden_size=p.width, num_attention_heads=p.heads, intermediate_size=p.ffn, dropout=0.0)
    last = p.vocabulary - 1
    detector = dict(
        model_type="sam3",
        vision_config=vision,
        text_config=dict(
            model_type="clip_text_model",
            vocab_size=p.vocabulary,
            hidden_size=p.text,
            intermediate_size=4 * p.text,
            # The pooled projection is part of the layout but of no use to SAM 3: as small as may be.
            projection_dim=8,
            num_hidden_layers=p.text_layers,
            num_attention_heads=p.text_heads,
            max_position_embeddings=p.context,
            hidden_act="gelu",
            bos_token_id=last - 1,
            eos_token_id=last,
            pad_token_id=last,
        ),
        geometry_encoder_config=dict(num_layers=p.geometry_layers, roi_size=p.roi, **stack),
        detr_encoder_config=dict(num_layers=p.encoder_layers, **stack),
        detr_decoder_config=dict(num_layers=p.decoder_layers, num_queries=p.queries, **stack),
        mask_decoder_config=dict(hidden_size=p.width, num_attention_heads=p.heads),
    )
    tracker = dict(
        model_type="sam3_tracker_video",
        vision_config=copy.deepcopy(vision),
        prompt_encoder_config=dict(hidden_size=p.width, image_size=p.size, patch_size=p.patch),
        mask_decoder_config=dict(
            # Single masks are taken as they come. Upstream swaps in the best of three where one is unsteady, which these
            # three, trained for lone clicks alone, do not improve (LOG.md).
            dynamic_multimask_stability_thresh=0.0,
            hidden_size=p.width,
            mlp_dim=p.tracker_ffn,
            num_attention_heads=p.tracker_heads,
            iou_head_hidden_dim=p.iou_hidden,
        ),
        # Memory across video frames: the layout has it, single pictures never use it, so it stays untrained and tiny.
        memory_attention_hidden_size=p.width,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16,
        memory_encoder_hidden_size=p.width,
        memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=p.width,
        mask_downsampler_total_stride=4,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=p.width,
        memory_fuser_intermediate_dim=16,
        image_size=p.size,
    )
    return Sam3VideoConfig(detector_config=detector, tracker_config=tracker, low_res_mask_size=p.cells)
