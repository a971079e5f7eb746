"""The network: `transformers`' own modules, wired so that one look at a picture serves many prompts.

`Demo.video` is the `Sam3VideoModel` that is exported; `Demo.aids` are heads that exist only while training. All forward
passes go through upstream's modules, so what is trained is what the engine computes. Shapes: B pictures, P prompts
each, N = B * P, D neck width, g tokens per side, M = 4 g mask cells per side.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Sam3VideoModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.sam3.modeling_sam3 import inverse_sigmoid

from config import video_config


FORM = 10


def lean_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    """Attention [B, h, n, d]: fused where there is no mask; else plain, with the scale on the queries and not on n x n
    scores. On a CPU upstream's eager function takes 1.8 times as long for a step at 240 px."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if attention_mask is None:
        out = F.scaled_dot_product_attention(query, key, value, scale=scaling)
    else:
        out = (query * scaling @ key.transpose(2, 3) + attention_mask).softmax(-1) @ value
    return out.transpose(1, 2).contiguous(), None


def lean_mask(*arguments, **named):
    """Upstream's mask, made without looking whether anything is masked, for which a GPU has to be waited for."""
    return eager_mask(*arguments, **{**named, "allow_is_bidirectional_skip": False})


ALL_ATTENTION_FUNCTIONS.register("lean", lean_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register("lean", lean_mask)  # without one upstream makes no masks at all


class Aids(nn.Module):
    """Training-only heads on the ViT's tokens (detector neck, token level): what a token is, where its object lies,
    and what the object looks like: its mask on FORM x FORM cells of its box."""

    def __init__(self, width, out=64):
        super().__init__()
        self.see = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))
        self.read = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-5.0))
        self.box = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))
        self.form = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, FORM * FORM)
        )


class Demo(nn.Module):
    def __init__(self, preset, attention="lean"):
        super().__init__()
        self.preset = preset
        self.video = Sam3VideoModel._from_config(video_config(preset), attn_implementation=attention).train()
        self.aids = Aids(preset.width)
        self.start()

    @property
    def detector(self):
        return self.video.detector_model

    @property
    def tracker(self):
        return self.video.tracker_model

    # --------------------------------------------------------------------------------------------------- beginning

    @torch.no_grad()
    def start(self):
        """Starting weights. Upstream's spread of 0.02 is made for width 1024; at 96 signals die out, so: Xavier."""
        for name, module in self.video.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if isinstance(module, nn.ConvTranspose2d):  # side 2, stride 2: one tap per output, fan-in is channels
                    bound = math.sqrt(3 / module.in_channels)
                    module.weight.uniform_(-bound, bound)
                if module.bias is not None:
                    module.bias.zero_()
        vit = self.detector.vision_encoder.backbone
        damp = 1 / math.sqrt(2 * len(vit.layers))  # a residual stream of unit size whatever the depth
        for layer in vit.layers:
            layer.attention.o_proj.weight.mul_(damp)
            layer.mlp.fc2.weight.mul_(damp)
        for depth, layer in enumerate(vit.layers):
            look_around(layer.attention, depth)
        # Attention adds positions to queries and keys only; what the values know of place comes from here.
        vit.embeddings.position_embeddings.copy_(0.5 * place_codes(self.preset.grid, self.preset.vit))
        nn.init.normal_(self.detector.text_encoder.text_model.embeddings.token_embedding.weight, std=0.05)

        decoder = self.detector.detr_decoder
        boxes = grid_boxes(self.preset.queries)
        decoder.reference_points.weight.copy_(torch.logit(boxes))
        nn.init.normal_(decoder.query_embed.weight, std=0.5)
        nn.init.normal_(decoder.presence_token.weight, std=0.5)
        for head in (decoder.box_head.layer3, decoder.presence_head.layer3):
            head.weight.mul_(0.1)
        for mlp in (decoder.box_rpb_embed_x, decoder.box_rpb_embed_y):
            look_inside(mlp)
        frequencies = self.tracker.shared_image_embedding.positional_embedding
        self.tracker.prompt_encoder.shared_embedding.positional_embedding.copy_(frequencies)
        for table in (
            self.tracker.mask_decoder.mask_tokens,
            self.tracker.mask_decoder.iou_token,
            self.tracker.mask_decoder.obj_score_token,
            self.tracker.prompt_encoder.point_embed,
            self.tracker.prompt_encoder.not_a_point_embed,
        ):
            nn.init.normal_(table.weight, std=0.5)
        nn.init.normal_(self.tracker.prompt_encoder.no_mask_embed.weight, std=0.1)
        transformer = self.tracker.mask_decoder.transformer
        for layer in transformer.layers:
            layer.layer_norm1.weight.fill_(0.3)  # at first the prompt's place speaks louder than its content
            look_there(layer.cross_attn_token_to_image)
            look_there(layer.cross_attn_image_to_token)
        look_there(transformer.final_attn_token_to_image)

    @torch.no_grad()
    def whiten(self, pixels):
        """Patch filters from pictures [B, 3, S, S]: their principal components, half way to equal spread.

        Random filters see little but the mean colour of a patch, for pictures hold most of their energy there;
        edges and corners then sit in directions of tiny spread and take long to be found. Equal spread, on the
        other hand, buries the colour (see LOG.md): the square root of either.
        """
        side = self.preset.patch
        patches = F.unfold(pixels, side, stride=side).transpose(1, 2).flatten(0, 1)
        centred = patches - patches.mean(0)
        spread, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        weight = self.detector.vision_encoder.backbone.embeddings.patch_embeddings.projection.weight
        spread, directions = spread.flip(0)[: len(weight)], directions.flip(1)[:, : len(weight)]  # strongest first
        filters = (directions / (spread + 1e-4 * spread[0]) ** 0.25).T
        filters = filters * (len(weight) / spread.sqrt().sum()).sqrt()  # unit spread on average
        weight.copy_(filters.reshape(weight.shape))

    # ------------------------------------------------------------------------------------------------------ seeing

    def look(self, pixels, fine=True, tracker=True):
        """Neck levels, finest first: (detector's three, detector's token-level positions, tracker's three).

        Without `fine` the detector's first two levels are left out (None): only its masks need them.
        """
        plane = self.plane(pixels)
        neck = self.detector.vision_encoder.neck
        seen = [layer(plane) if fine or i == 2 else None for i, layer in enumerate(neck.fpn_layers[:3])]
        places = neck.position_encoding(seen[2][:1].shape, seen[2].device, torch.float32)
        return seen, places, self.track_levels(plane) if tracker else None

    def plane(self, pixels):
        """The ViT's tokens as a map [B, width, g, g]."""
        tokens = self.detector.vision_encoder.backbone(pixels).last_hidden_state
        return tokens.transpose(1, 2).reshape(len(pixels), -1, self.preset.grid, self.preset.grid)

    def track_levels(self, plane):
        """The tracker's three neck levels, finest first."""
        return [layer(plane) for layer in self.video.tracker_neck.fpn_layers[:3]]

    def read(self, ids, mask):
        """Text features [n, L, D] of n phrases; equal rows are read once on a CPU. A GPU reads all of them sooner than it
        finds and tells which are equal, or how long the longest is."""
        if ids.is_cuda:
            return self.detector.get_text_features(ids, attention_mask=mask).pooler_output, mask.bool()
        longest = int(mask.sum(1).max())
        rows, back = torch.unique(torch.cat([ids[:, :longest], mask[:, :longest]], 1), dim=0, return_inverse=True)
        features = self.detector.get_text_features(rows[:, :longest], attention_mask=rows[:, longest:]).pooler_output
        return features[back], mask[:, :longest].bool()

    # --------------------------------------------------------------------------------------------------- detecting

    def detect(self, seen, places, prompt, prompt_mask, per, extra=None, masks_for=None):
        """The detector for `per` prompts a picture; see `Sam3Model.forward`.

        `prompt` [N, L, D] with `prompt_mask` [N, L] is text, exemplars, or both. `extra` is another set of starting
        boxes [N, E, 4] for the same decoder with query contents drawn from its own (training aid). Masks are only
        computed for the prompts in `masks_for` (indices into N), all if None. Results: per decoder layer, `boxes`
        [layers, N, Q, 4], `scores` and `presence` logits; of the last layer, `masks` and `area`, the semantic map.
        """
        model = self.detector
        rep = lambda t: t.repeat_interleave(per, 0)
        coarse = rep(seen[2])
        encoded = model.detr_encoder(
            vision_features=[coarse],
            text_features=prompt,
            vision_pos_embeds=[places.expand(len(coarse), -1, -1, -1)],
            text_mask=prompt_mask,
        )
        memory = encoded.last_hidden_state
        encoded.spatial_shapes = torch.tensor([coarse.shape[-2:]])  # the decoder counts by it, so it is kept on the CPU
        out = self._decode(memory, encoded, prompt_mask, None)
        if extra is not None:
            out["extra"] = self._decode(memory, encoded, prompt_mask, extra)
        picked = slice(None) if masks_for is None else masks_for
        pictures = torch.arange(len(coarse), device=coarse.device)[picked] // per
        out["masks"], out["area"], pixels = self._masks(
            out["hidden"][-1][picked], [s[pictures] for s in seen], memory[picked], prompt[picked], prompt_mask[picked]
        )
        if extra is not None:
            embedded = model.mask_decoder.mask_embedder(out["extra"]["hidden"][-1][picked])
            out["extra"]["masks"] = torch.einsum("bqc,bchw->bqhw", embedded, pixels)
        return out

    def _decode(self, memory, encoded, prompt_mask, boxes):
        decoder = self.detector.detr_decoder
        if boxes is None:
            done = decoder(
                vision_features=memory,
                text_features=encoded.text_features,
                vision_pos_encoding=encoded.pos_embeds_flattened,
                text_mask=prompt_mask,
                spatial_shapes=encoded.spatial_shapes,
            )
            hidden, before, presence = done.intermediate_hidden_states, done.reference_boxes, done.presence_logits
        else:
            hidden, before, presence = self._decode_from(memory, encoded, prompt_mask, boxes)
        hidden = hidden.float()
        with torch.autocast(hidden.device.type, enabled=False):  # boxes and scores need more than eight bits
            scores = self.detector.dot_product_scoring(
                decoder_hidden_states=hidden, text_features=encoded.text_features.float(), text_mask=prompt_mask
            )
            moved = (inverse_sigmoid(before.float()) + decoder.box_head(hidden)).sigmoid()
        return dict(hidden=hidden, boxes=moved, scores=scores.squeeze(-1), presence=presence.float().squeeze(-1))

    def _decode_from(self, memory, encoded, prompt_mask, boxes):
        """`Sam3DetrDecoder.forward` from given boxes [N, E, 4]; contents are the decoder's own queries in turn."""
        decoder = self.detector.detr_decoder
        count, queries = boxes.shape[1], decoder.query_embed.weight
        content = queries[torch.randperm(len(queries), device=queries.device)[:count]].expand(len(boxes), -1, -1)
        hidden = torch.cat([decoder.presence_token.weight.expand(len(boxes), 1, -1), content], 1)
        text_mask = additive(prompt_mask)
        found, before = [], []
        for layer in decoder.layers:
            before.append(boxes)
            where = decoder.ref_point_head(decoder.position_encoding.encode_boxes(boxes))
            bias = decoder._get_rpb_matrix(boxes, (encoded.spatial_shapes[0, 0], encoded.spatial_shapes[0, 1]))
            hidden = layer(
                hidden,
                query_pos=where,
                text_features=encoded.text_features,
                vision_features=memory,
                vision_pos_encoding=encoded.pos_embeds_flattened,
                text_cross_attn_mask=text_mask,
                vision_cross_attn_mask=F.pad(bias, (0, 0, 1, 0)).to(hidden.dtype),
            )
            normed = decoder.output_layer_norm(hidden[:, 1:])
            boxes = (decoder.box_head(normed) + inverse_sigmoid(boxes)).sigmoid().detach()
            found.append(normed)
        return torch.stack(found), torch.stack(before), memory.new_zeros(len(decoder.layers), len(memory), 1)

    def _masks(self, queries, seen, memory, prompt, prompt_mask):
        """`Sam3MaskDecoder.forward`, keeping the pixel embeddings."""
        head = self.detector.mask_decoder
        normed = head.prompt_cross_attn_norm(memory)
        told, _ = head.prompt_cross_attn(query=normed, key=prompt, value=prompt, attention_mask=additive(prompt_mask))
        pixels = head._embed_pixels(seen, memory + told)
        instance = head.instance_projection(pixels)
        masks = torch.einsum("bqc,bchw->bqhw", head.mask_embedder(queries), instance)
        return masks, head.semantic_projection(pixels)[:, 0], instance

    def exemplars(self, seen, places, boxes, labels, pictures):
        """Features [N, boxes + 1, D] and mask of exemplar boxes [N, boxes, 4] with labels 1, 0 or -10 for padding."""
        with torch.autocast(boxes.device.type, enabled=False):  # box pooling has no bfloat16 on CPUs
            out = self.detector.geometry_encoder(
                box_embeddings=boxes,
                box_mask=labels != -10,
                box_labels=labels.clamp(min=0),
                img_feats=[seen[2][pictures].float()],
                img_pos_embeds=[places.expand(len(pictures), -1, -1, -1)],
            )
        return out.last_hidden_state, out.attention_mask.bool()

    # ---------------------------------------------------------------------------------------------------- tracking

    def track(self, levels, pictures, points=None, labels=None, boxes=None, masks=None):
        """The click decoder for n prompts, prompt i on picture `pictures[i]`; see `Sam3TrackerModel.forward`.

        `points` [n, k, 2] in pixels, `labels` [n, k] 1, 0 or -10 for padding, `boxes` [n, 4] corners in pixels,
        `masks` [n, 1, M, M] logits. Returns all four masks [n, 4, M, M] (the first is the single-mask answer, the
        others the three alternatives), their predicted IoU [n, 4] and the object score [n].
        """
        prompt, head = self.tracker.prompt_encoder, self.tracker.mask_decoder
        with torch.autocast(levels[0].device.type, enabled=False):  # eight bits are less than the pixels of a side
            sparse, dense = prompt(
                input_points=None if points is None else points[:, None],
                input_labels=None if labels is None else labels[:, None],
                input_boxes=None if boxes is None else boxes[:, None],
                input_masks=masks,
            )
            places = self._image_places()
        fine, middle, coarse = (levels[0], levels[1], levels[2])
        fine, middle = head.conv_s0(fine)[pictures], head.conv_s1(middle)[pictures]
        n = len(pictures)
        own = torch.cat([head.obj_score_token.weight, head.iou_token.weight, head.mask_tokens.weight])
        tokens = torch.cat([own.expand(n, 1, -1, -1), sparse], 2)
        tokens, image = head.transformer(
            point_embeddings=tokens,
            image_embeddings=coarse[pictures] + dense,
            image_positional_embeddings=places.expand(n, -1, -1, -1),
            attention_similarity=None,
        )
        image = image.transpose(2, 3).reshape(coarse[pictures].shape)
        image = head.activation(head.upscale_layer_norm(head.upscale_conv1(image) + middle))
        image = head.activation(head.upscale_conv2(image) + fine)
        hyper = torch.stack([mlp(tokens[:, 0, 2 + i]) for i, mlp in enumerate(head.output_hypernetworks_mlps)], 1)
        found = torch.einsum("nkc,nchw->nkhw", hyper, image)
        return (
            found.float(),
            head.iou_prediction_head(tokens[:, 0, 1]).float(),
            head.pred_obj_score_head(tokens[:, 0, 0]).float()[:, 0],
        )

    def _image_places(self):
        embed, grid = self.tracker.shared_image_embedding, self.preset.grid
        axis = (torch.arange(grid, device=embed.positional_embedding.device) + 0.5) / grid
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return embed(torch.stack([x, y], -1)).permute(2, 0, 1)[None]


def size_loss(levels):
    """How far neck levels are from unit size, squared logarithm of the mean square. Nothing else holds them: heads with
    norms of their own do not care, but positions of unit size are added to these features, and drown in large ones."""
    return sum(level.float().pow(2).mean().clamp(min=1e-6).log().square() for level in levels if level is not None)


def additive(mask):
    """A bool mask [N, L] as what is added to attention logits, [N, 1, 1, L]."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -1e9)[:, None, None, :]


def place_codes(grid, width):
    """Sines and cosines of x and y over the unit square, [1, grid^2, width], waves from four pictures to two tokens."""
    waves = width // 4
    turns = 2 * math.pi * torch.exp(torch.linspace(math.log(0.25), math.log(grid / 2), waves))
    axis = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    codes = [f(c.reshape(-1, 1) * turns) for c in (x, y) for f in (torch.sin, torch.cos)]
    return torch.cat(codes, 1)[None]


def grid_boxes(count):
    """Starting boxes on a square grid, a third of the picture wide."""
    side = math.ceil(math.sqrt(count))
    axis = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    middle = torch.stack([x, y], -1).reshape(-1, 2)[:count]
    return torch.cat([middle, torch.full((count, 2), 0.3)], 1)


@torch.no_grad()
def look_around(attention, depth, sharp=4.0):
    """Starts half the heads of a ViT layer as looks at a neighbouring token, half as looks at tokens like itself.

    The first make the layers begin as convolutions: rotary positions turn the product of two constant vectors into a
    function of the way between two tokens, a sum over frequencies w of cos(w (way - aim)), largest at `aim`; the
    constants go into the biases. `sharp` is the height of the peak along each axis. The others have equal projections
    for queries and keys: tokens of one object find each other by colour before anything is learned.
    """
    heads, dim = attention.num_attention_heads, attention.head_dim
    attention.k_proj.weight.copy_(attention.q_proj.weight)
    pairs = dim // 4  # per axis
    waves = 10000.0 ** (-torch.arange(pairs) / pairs)
    strength = torch.zeros(pairs)
    strength[:2] = torch.tensor([0.7, 0.3])  # the quick wave places the peak, the next tells it from its repetition
    size = (sharp * dim**0.5 * strength).sqrt()
    # Straight steps in the first two layers, diagonal in the next two, then straight steps of two.
    step = 2.0 if depth >= 4 else 1.0
    aims = [(step, 0), (-step, 0), (0, step), (0, -step)] if depth % 4 < 2 else [(1, 1), (-1, -1), (1, -1), (-1, 1)]
    for head in range(heads // 2):
        aim = aims[(heads // 2 * depth + head) % 4]
        rows = slice(head * dim, (head + 1) * dim)
        query, key = torch.zeros(2, pairs, 2), torch.zeros(2, pairs, 2)
        for axis in range(2):
            query[axis, :, 0] = size
            key[axis, :, 0] = size * torch.cos(waves * aim[axis])
            key[axis, :, 1] = -size * torch.sin(waves * aim[axis])
        for projection, bias in ((attention.q_proj, query), (attention.k_proj, key)):
            projection.weight[rows] *= 0.3
            projection.bias[rows] = bias.flatten()


@torch.no_grad()
def look_there(attention, gain=2.0):
    """Starts a cross attention between prompts and picture as a look at the like: equal projections of queries and
    keys make a token and a place attend to each other where their position codes agree."""
    attention.q_proj.weight.mul_(gain)
    attention.k_proj.weight.copy_(attention.q_proj.weight)


@torch.no_grad()
def look_inside(mlp):
    """Starts a box-bias network as "look inside the box": the further beyond an edge, the less attention.

    Its inputs are the (log-scaled) distances of a column from the left and the right edge, positive to the right of
    it; a ReLU network of four units states the four half-planes. Heads differ in how strict they are.
    """
    first, second = mlp.layer1, mlp.layer2
    first.weight[:4] = torch.tensor([[-4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [0.0, -4.0]])
    first.bias[:4] = 0
    second.weight.mul_(0.3)
    strict = torch.linspace(0.5, 3.0, second.weight.shape[0])
    second.weight[:, 0] = second.weight[:, 1] = -strict
    second.weight[:, 2:4] = 0
